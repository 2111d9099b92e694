//! The errors SQS answers with, and how each one looks on the wire.

/// What went wrong, and the sentence that tells the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub fault: Fault,
    pub message: String,
}

impl Error {
    pub fn new(fault: Fault, message: impl Into<String>) -> Self {
        Self { fault, message: message.into() }
    }

    /// A parameter outside its range, in the words SQS uses.
    pub fn invalid_value(parameter: &str, value: impl std::fmt::Display, reason: &str) -> Self {
        Self::new(
            Fault::InvalidParameterValue,
            format!("Value {value} for parameter {parameter} is invalid. Reason: {reason}"),
        )
    }

    pub fn missing(parameter: &str) -> Self {
        Self::new(Fault::MissingParameter, format!("The request must contain the parameter {parameter}."))
    }

    pub fn no_such_queue() -> Self {
        Self::new(Fault::QueueDoesNotExist, "The specified queue does not exist.")
    }
}

/// The kinds of error this stand-in can answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
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
    ResourceNotFound,
    TooManyEntriesInBatchRequest,
    UnknownOperation,
    UnsupportedOperation,
}

impl Fault {
    /// HTTP status of an answer that consists of this error.
    pub fn status(self) -> u16 {
        self.wire().0
    }

    /// The JSON protocol's `__type`.
    pub fn type_name(self) -> &'static str {
        self.wire().1
    }

    /// The older query protocol's code, which SQS still sends in `x-amzn-query-error` and in `Failed` batch entries.
    pub fn query_code(self) -> &'static str {
        self.wire().2
    }

    /// Whether the caller is to blame.
    pub fn is_senders(self) -> bool {
        self != Fault::Internal
    }

    fn wire(self) -> (u16, &'static str, &'static str) {
        match self {
            Fault::BatchEntryIdsNotDistinct => {
                (400, "com.amazonaws.sqs#BatchEntryIdsNotDistinct", "AWS.SimpleQueueService.BatchEntryIdsNotDistinct")
            }
            Fault::BatchRequestTooLong => {
                (400, "com.amazonaws.sqs#BatchRequestTooLong", "AWS.SimpleQueueService.BatchRequestTooLong")
            }
            Fault::EmptyBatchRequest => {
                (400, "com.amazonaws.sqs#EmptyBatchRequest", "AWS.SimpleQueueService.EmptyBatchRequest")
            }
            Fault::Internal => (500, "com.amazon.coral.service#InternalFailure", "InternalFailure"),
            Fault::InvalidAddress => (404, "com.amazonaws.sqs#InvalidAddress", "InvalidAddress"),
            Fault::InvalidAttributeName => (400, "com.amazonaws.sqs#InvalidAttributeName", "InvalidAttributeName"),
            Fault::InvalidAttributeValue => (400, "com.amazonaws.sqs#InvalidAttributeValue", "InvalidAttributeValue"),
            Fault::InvalidBatchEntryId => {
                (400, "com.amazonaws.sqs#InvalidBatchEntryId", "AWS.SimpleQueueService.InvalidBatchEntryId")
            }
            Fault::InvalidMessageContents => {
                (400, "com.amazonaws.sqs#InvalidMessageContents", "InvalidMessageContents")
            }
            Fault::InvalidParameterValue => {
                (400, "com.amazon.coral.service#InvalidParameterValueException", "InvalidParameterValue")
            }
            Fault::MalformedInput => (400, "com.amazon.coral.service#SerializationException", "MalformedInput"),
            Fault::MessageNotInflight => {
                (400, "com.amazonaws.sqs#MessageNotInflight", "AWS.SimpleQueueService.MessageNotInflight")
            }
            Fault::MissingParameter => {
                (400, "com.amazon.coral.service#MissingRequiredParameterException", "MissingParameter")
            }
            Fault::OverLimit => (403, "com.amazonaws.sqs#OverLimit", "OverLimit"),
            Fault::PurgeQueueInProgress => {
                (403, "com.amazonaws.sqs#PurgeQueueInProgress", "AWS.SimpleQueueService.PurgeQueueInProgress")
            }
            Fault::QueueDoesNotExist => {
                (400, "com.amazonaws.sqs#QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue")
            }
            Fault::QueueNameExists => (400, "com.amazonaws.sqs#QueueNameExists", "QueueAlreadyExists"),
            Fault::ReceiptHandleIsInvalid => {
                (404, "com.amazonaws.sqs#ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid")
            }
            Fault::ResourceNotFound => {
                (404, "com.amazonaws.sqs#ResourceNotFoundException", "ResourceNotFoundException")
            }
            Fault::TooManyEntriesInBatchRequest => (
                400,
                "com.amazonaws.sqs#TooManyEntriesInBatchRequest",
                "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
            ),
            Fault::UnknownOperation => (400, "com.amazon.coral.service#UnknownOperationException", "InvalidAction"),
            Fault::UnsupportedOperation => {
                (400, "com.amazonaws.sqs#UnsupportedOperation", "AWS.SimpleQueueService.UnsupportedOperation")
            }
        }
    }
}
