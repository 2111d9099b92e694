//! Errors of SQS and their representation on the wire.

/// An error response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Kind of the error.
    pub code: ErrorCode,
    /// Text for the caller.
    pub message: String,
}

impl Error {
    /// Creates an error with a message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Creates the error for a parameter outside its range, with the message of SQS.
    pub fn invalid_value(parameter: &str, value: impl std::fmt::Display, reason: &str) -> Self {
        Self::new(
            ErrorCode::InvalidParameterValue,
            format!("Value {value} for parameter {parameter} is invalid. Reason: {reason}"),
        )
    }

    /// Creates the error for a missing parameter.
    pub fn missing(parameter: &str) -> Self {
        Self::new(ErrorCode::MissingParameter, format!("The request must contain the parameter {parameter}."))
    }

    /// Creates the error for an unknown queue.
    pub fn no_such_queue() -> Self {
        Self::new(ErrorCode::QueueDoesNotExist, "The specified queue does not exist.")
    }
}

/// Kinds of errors that this stand-in returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    BatchEntryIdsNotDistinct,
    BatchRequestTooLong,
    EmptyBatchRequest,
    Internal,
    InvalidAddress,
    InvalidAttributeName,
    InvalidAttributeValue,
    InvalidBatchEntryId,
    InvalidMessageContents,
    InvalidParameterValue,
    MalformedInput,
    MessageNotInflight,
    MissingParameter,
    OverLimit,
    PurgeQueueInProgress,
    QueueDoesNotExist,
    QueueNameExists,
    ReceiptHandleIsInvalid,
    RequestThrottled,
    ResourceNotFound,
    TooManyEntriesInBatchRequest,
    UnknownOperation,
    UnsupportedOperation,
}

impl ErrorCode {
    /// Returns the HTTP status of the error response.
    pub fn status(self) -> u16 {
        self.wire().0
    }

    /// Returns the `__type` of the JSON protocol.
    pub fn type_name(self) -> &'static str {
        self.wire().1
    }

    /// Returns the code of the older query protocol, which SQS still sends in `x-amzn-query-error`
    /// and in `Failed` batch entries.
    pub fn query_code(self) -> &'static str {
        self.wire().2
    }

    /// Returns whether the caller caused the error.
    pub fn is_sender_fault(self) -> bool {
        self != ErrorCode::Internal
    }

    fn wire(self) -> (u16, &'static str, &'static str) {
        match self {
            ErrorCode::BatchEntryIdsNotDistinct => {
                (400, "com.amazonaws.sqs#BatchEntryIdsNotDistinct", "AWS.SimpleQueueService.BatchEntryIdsNotDistinct")
            }
            ErrorCode::BatchRequestTooLong => {
                (400, "com.amazonaws.sqs#BatchRequestTooLong", "AWS.SimpleQueueService.BatchRequestTooLong")
            }
            ErrorCode::EmptyBatchRequest => {
                (400, "com.amazonaws.sqs#EmptyBatchRequest", "AWS.SimpleQueueService.EmptyBatchRequest")
            }
            ErrorCode::Internal => (500, "com.amazon.coral.service#InternalFailure", "InternalFailure"),
            ErrorCode::InvalidAddress => (404, "com.amazonaws.sqs#InvalidAddress", "InvalidAddress"),
            ErrorCode::InvalidAttributeName => (400, "com.amazonaws.sqs#InvalidAttributeName", "InvalidAttributeName"),
            ErrorCode::InvalidAttributeValue => {
                (400, "com.amazonaws.sqs#InvalidAttributeValue", "InvalidAttributeValue")
            }
            ErrorCode::InvalidBatchEntryId => {
                (400, "com.amazonaws.sqs#InvalidBatchEntryId", "AWS.SimpleQueueService.InvalidBatchEntryId")
            }
            ErrorCode::InvalidMessageContents => {
                (400, "com.amazonaws.sqs#InvalidMessageContents", "InvalidMessageContents")
            }
            ErrorCode::InvalidParameterValue => {
                (400, "com.amazon.coral.service#InvalidParameterValueException", "InvalidParameterValue")
            }
            ErrorCode::MalformedInput => (400, "com.amazon.coral.service#SerializationException", "MalformedInput"),
            ErrorCode::MessageNotInflight => {
                (400, "com.amazonaws.sqs#MessageNotInflight", "AWS.SimpleQueueService.MessageNotInflight")
            }
            ErrorCode::MissingParameter => {
                (400, "com.amazon.coral.service#MissingRequiredParameterException", "MissingParameter")
            }
            ErrorCode::OverLimit => (403, "com.amazonaws.sqs#OverLimit", "OverLimit"),
            ErrorCode::PurgeQueueInProgress => {
                (403, "com.amazonaws.sqs#PurgeQueueInProgress", "AWS.SimpleQueueService.PurgeQueueInProgress")
            }
            ErrorCode::QueueDoesNotExist => {
                (400, "com.amazonaws.sqs#QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue")
            }
            ErrorCode::QueueNameExists => (400, "com.amazonaws.sqs#QueueNameExists", "QueueAlreadyExists"),
            ErrorCode::ReceiptHandleIsInvalid => {
                (404, "com.amazonaws.sqs#ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid")
            }
            ErrorCode::RequestThrottled => (400, "com.amazonaws.sqs#RequestThrottled", "RequestThrottled"),
            ErrorCode::ResourceNotFound => {
                (404, "com.amazonaws.sqs#ResourceNotFoundException", "ResourceNotFoundException")
            }
            ErrorCode::TooManyEntriesInBatchRequest => (
                400,
                "com.amazonaws.sqs#TooManyEntriesInBatchRequest",
                "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
            ),
            ErrorCode::UnknownOperation => (400, "com.amazon.coral.service#UnknownOperationException", "InvalidAction"),
            ErrorCode::UnsupportedOperation => {
                (400, "com.amazonaws.sqs#UnsupportedOperation", "AWS.SimpleQueueService.UnsupportedOperation")
            }
        }
    }
}
