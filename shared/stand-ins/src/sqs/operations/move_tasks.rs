//! StartMessageMoveTask, ListMessageMoveTasks and CancelMessageMoveTask.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Call;
use crate::sqs::{
    error::{Error, ErrorCode},
    move_task::{MoveTask, Status},
    service::Service,
    settings::queue_name_from_arn,
    state::{Change, State, is_dead_letter_queue},
    validate,
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MoveTaskInput {
    source_arn: Option<String>,
    destination_arn: Option<String>,
    max_number_of_messages_per_second: Option<i64>,
    max_results: Option<i64>,
    task_handle: Option<String>,
}

/// Runs StartMessageMoveTask.
pub fn start(service: &Service, call: &Call) -> Result<Value, Error> {
    let input: MoveTaskInput = call.input()?;
    let source_arn = input.source_arn.ok_or_else(|| Error::missing("SourceArn"))?;
    let rate = input.max_number_of_messages_per_second;
    let rate = rate.map(|rate| validate::range("MaxNumberOfMessagesPerSecond", Some(rate), 0, (1, 500))).transpose()?;
    service.transact(|state, now_ms| {
        let to_move = check_source(state, &source_arn)?;
        if let Some(arn) = &input.destination_arn {
            find_queue(state, arn, "DestinationArn")?;
        }
        let id = uuid::Uuid::new_v4().to_string();
        let task = MoveTask {
            id: id.clone(),
            source_arn,
            destination_arn: input.destination_arn,
            rate,
            started_ms: now_ms,
            status: Status::Running,
            moved: 0,
            to_move,
            failure: None,
        };
        let handle = task_handle(&task);
        state.tasks.push(task);
        state.changes.push(Change::TaskUpdated(id));
        Ok(json!({ "TaskHandle": handle }))
    })
}

/// Runs ListMessageMoveTasks.
pub fn list(service: &Service, call: &Call) -> Result<Value, Error> {
    let input: MoveTaskInput = call.input()?;
    let source_arn = input.source_arn.ok_or_else(|| Error::missing("SourceArn"))?;
    let count = validate::range("MaxResults", input.max_results, 1, (1, 10))?;
    service.transact(|state, _| {
        find_queue(state, &source_arn, "SourceArn")?;
        let tasks = state.tasks.iter().rev().filter(|task| task.source_arn == source_arn);
        Ok(json!({ "Results": tasks.take(count as usize).map(to_json).collect::<Vec<_>>() }))
    })
}

/// Runs CancelMessageMoveTask.
pub fn cancel(service: &Service, call: &Call) -> Result<Value, Error> {
    let handle = call.input::<MoveTaskInput>()?.task_handle.ok_or_else(|| Error::missing("TaskHandle"))?;
    service.transact(|state, _| {
        let task = state.tasks.iter_mut().find(|task| task_handle(task) == handle);
        let task = task.ok_or_else(|| Error::new(ErrorCode::ResourceNotFound, "Task does not exist."))?;
        if task.status != Status::Running {
            return Err(Error::new(ErrorCode::UnsupportedOperation, "Only active tasks can be cancelled."));
        }
        task.status = Status::Cancelled;
        let output = json!({ "ApproximateNumberOfMessagesMoved": task.moved });
        let id = task.id.clone();
        state.changes.push(Change::TaskUpdated(id));
        Ok(output)
    })
}

/// Checks that a task may start at this source. Returns the number of its visible messages.
fn check_source(state: &State, arn: &str) -> Result<u64, Error> {
    let name = find_queue(state, arn, "SourceArn")?;
    if !is_dead_letter_queue(&state.queues, arn) {
        let message = "Source queue must be configured as a Dead Letter Queue.";
        return Err(Error::new(ErrorCode::InvalidParameterValue, message));
    }
    let is_busy = |task: &MoveTask| task.source_arn == arn && task.status == Status::Running;
    if state.tasks.iter().any(is_busy) {
        let message = "There is already a task running. Only one active task is allowed for a source queue arn at a \
                       given time.";
        return Err(Error::new(ErrorCode::UnsupportedOperation, message));
    }
    Ok(state.queue(name)?.counts().visible as u64)
}

fn find_queue<'a>(state: &State, arn: &'a str, parameter: &str) -> Result<&'a str, Error> {
    queue_name_from_arn(arn).filter(|name| state.queues.contains_key(*name)).ok_or_else(|| {
        let message = format!("The resource that you specified for the {parameter} parameter doesn't exist.");
        Error::new(ErrorCode::ResourceNotFound, message)
    })
}

fn task_handle(task: &MoveTask) -> String {
    STANDARD.encode(json!({ "taskId": task.id, "sourceArn": task.source_arn }).to_string())
}

fn to_json(task: &MoveTask) -> Value {
    let mut output = json!({
        "Status": task.status.name(),
        "SourceArn": task.source_arn,
        "ApproximateNumberOfMessagesMoved": task.moved,
        "ApproximateNumberOfMessagesToMove": task.to_move,
        "StartedTimestamp": task.started_ms,
    });
    if task.status == Status::Running {
        output["TaskHandle"] = json!(task_handle(task));
    }
    if let Some(arn) = &task.destination_arn {
        output["DestinationArn"] = json!(arn);
    }
    if let Some(rate) = task.rate {
        output["MaxNumberOfMessagesPerSecond"] = json!(rate);
    }
    if let Some(failure) = &task.failure {
        output["FailureReason"] = json!(failure);
    }
    output
}
