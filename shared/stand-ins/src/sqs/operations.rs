//! Dispatch of SQS operations, and the parts that they share: reading the input and finding the
//! queue.

mod acknowledge;
mod batch;
mod move_tasks;
mod queues;
mod receive;
mod send;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    error::{Error, ErrorCode},
    service::Service,
    settings::ACCOUNT_ID,
};

/// A request to an operation.
pub struct Call {
    /// Start of the queue URLs in the response.
    pub base_url: String,
    /// Path of the request: `/`, or the path of a queue URL.
    pub path: String,
    /// JSON body of the request.
    pub input: Value,
}

/// Runs an operation and returns its output.
///
/// # Errors
/// Returns the error that SQS returns.
pub async fn run(service: &Service, operation: &str, call: Call) -> Result<Value, Error> {
    match operation {
        "CreateQueue" => queues::create(service, &call),
        "DeleteQueue" => queues::delete(service, &call),
        "GetQueueAttributes" => queues::attributes(service, &call),
        "GetQueueUrl" => queues::url(service, &call),
        "ListDeadLetterSourceQueues" => queues::list_sources(service, &call),
        "ListQueueTags" => queues::tags(service, &call),
        "ListQueues" => queues::list(service, &call),
        "PurgeQueue" => queues::purge(service, &call),
        "SetQueueAttributes" => queues::set_attributes(service, &call),
        "TagQueue" => queues::tag(service, &call),
        "UntagQueue" => queues::untag(service, &call),
        "SendMessage" => send::send(service, &call),
        "SendMessageBatch" => send::batch(service, &call),
        "ReceiveMessage" => receive::receive(service, &call).await,
        "DeleteMessage" => acknowledge::delete(service, &call),
        "DeleteMessageBatch" => acknowledge::delete_batch(service, &call),
        "ChangeMessageVisibility" => acknowledge::change_visibility(service, &call),
        "ChangeMessageVisibilityBatch" => acknowledge::change_visibility_batch(service, &call),
        "StartMessageMoveTask" => move_tasks::start(service, &call),
        "ListMessageMoveTasks" => move_tasks::list(service, &call),
        "CancelMessageMoveTask" => move_tasks::cancel(service, &call),
        "AddPermission" | "RemovePermission" => {
            Err(Error::new(ErrorCode::UnsupportedOperation, format!("This stand-in does not support {operation}.")))
        }
        _ => Err(Error::new(ErrorCode::UnknownOperation, format!("There is no operation {operation}."))),
    }
}

impl Call {
    /// Deserializes the input of an operation.
    fn input<T: DeserializeOwned>(&self) -> Result<T, Error> {
        T::deserialize(&self.input).map_err(|_| {
            Error::new(
                ErrorCode::MalformedInput,
                "A member of the request has a type that the operation does not expect.",
            )
        })
    }

    /// Returns the name of the queue from `QueueUrl`, or from the path without that member.
    fn queue(&self) -> Result<String, Error> {
        let address = match self.input.get("QueueUrl") {
            None | Some(Value::Null) if self.path.len() > 1 => self.path.as_str(),
            Some(Value::String(url)) if !url.is_empty() => url.as_str(),
            _ => return Err(Error::no_such_queue()),
        };
        let path = address.split_once("://").map_or(address, |(_, rest)| rest);
        let mut parts = path.split('/').skip(1);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(ACCOUNT_ID), Some(name), None) => Ok(name.to_owned()),
            (Some(_), Some(_), None) => Err(Error::no_such_queue()),
            _ => {
                let message = format!("The address {address} is not valid for this endpoint.");
                Err(Error::new(ErrorCode::InvalidAddress, message))
            }
        }
    }

    fn queue_url(&self, queue: &str) -> String {
        format!("{}/{ACCOUNT_ID}/{queue}", self.base_url)
    }
}
