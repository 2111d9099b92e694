//! The table of SQS operations, and what they share: reading the input and finding the queue.

mod acknowledge;
mod batch;
mod move_tasks;
mod queues;
mod receive;
mod send;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    error::{Error, Fault},
    service::Service,
    settings::ACCOUNT,
};

/// One request, as far as HTTP is concerned.
pub struct Call {
    /// What queue URLs in the answer begin with.
    pub base_url: String,
    /// The path the request was sent to: `/`, or that of a queue URL.
    pub path: String,
    pub input: Value,
}

/// Runs one operation and gives its output.
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
        "SendMessage" => send::one(service, &call),
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
            Err(Error::new(Fault::UnsupportedOperation, format!("This stand-in does not have {operation}.")))
        }
        _ => Err(Error::new(Fault::UnknownOperation, format!("There is no operation {operation}."))),
    }
}

impl Call {
    /// The input in the shape an operation expects.
    fn input<T: DeserializeOwned>(&self) -> Result<T, Error> {
        T::deserialize(&self.input).map_err(|_| {
            Error::new(Fault::MalformedInput, "A member of the request has a type the operation does not expect.")
        })
    }

    /// The name of the queue the request is for: from its `QueueUrl`, or else from the path it was sent to.
    fn queue(&self) -> Result<String, Error> {
        let address = match self.input.get("QueueUrl") {
            None | Some(Value::Null) if self.path.len() > 1 => self.path.as_str(),
            Some(Value::String(url)) if !url.is_empty() => url.as_str(),
            _ => return Err(Error::no_such_queue()),
        };
        let path = address.split_once("://").map_or(address, |(_, rest)| rest);
        let mut parts = path.split('/').skip(1);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(ACCOUNT), Some(name), None) => Ok(name.to_owned()),
            (Some(_), Some(_), None) => Err(Error::no_such_queue()),
            _ => {
                let message = format!("The address {address} is not valid for this endpoint.");
                Err(Error::new(Fault::InvalidAddress, message))
            }
        }
    }

    fn url_of(&self, queue: &str) -> String {
        format!("{}/{ACCOUNT}/{queue}", self.base_url)
    }
}
