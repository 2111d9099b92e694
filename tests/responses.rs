//! OpenAI's responses over HTTP: a conversation with a tool, a stream, refusals, and a job.

use serde_json::{Value, json};

use crate::support::{
    Deployment,
    answer::{Answer, Events, used},
    jobs::{JOB_QUEUE, two_tenants},
    one_tenant,
};

const PATH: &str = "/v1/responses";
const LIMITS: &str = "{ requests_per_minute = 100, tokens_per_minute = 10000, in_flight = 5 }";

fn ask(prompt: &str, extra: &Value) -> Value {
    let mut body = json!({ "model": "m", "input": prompt, "max_output_tokens": 500 });
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("members").clone());
    body
}

#[tokio::test]
async fn a_conversation_with_a_tool_continues_with_its_items() {
    let deployment = Deployment::start(&one_tenant(LIMITS)).await;
    let tools =
        json!([{ "type": "function", "name": "weather", "parameters": { "type": "object", "properties": {} } }]);
    let prompt = json!({ "role": "user", "content": r#"[[tool=weather {"city":"Oslo"}]]"# });
    let body = json!({ "model": "m", "input": [prompt], "tools": tools, "store": true });
    let answer = deployment.ask("/openai/v1/responses", "t", &body).await;
    let response = answer.json();
    assert_eq!((answer.status, &response["status"]), (200, &json!("completed")), "{response}");
    assert_eq!(response["id"], format!("resp_{}", answer.header("x-request-id")));
    assert_eq!(answer.header("x-spillway-ignored"), "store");
    let call = &response["output"][0];
    assert_eq!((&call["type"], &call["arguments"]), (&json!("function_call"), &json!(r#"{"city":"Oslo"}"#)));

    let result = json!({ "type": "function_call_output", "call_id": call["call_id"], "output": "[[output_tokens=7]]" });
    let body = json!({ "model": "m", "input": [prompt, call, result], "tools": tools, "tool_choice": "none" });
    let response = deployment.ask(PATH, "t", &body).await.json();
    assert_eq!(response["output"].as_array().map(Vec::len), Some(1), "{response}");
    assert!(response["usage"]["output_tokens"].is_u64(), "{response}");
    assert_eq!(used(&deployment.quota("t").await, "requests_per_minute"), 2);
}

#[tokio::test]
async fn a_stream_ends_with_the_response_and_its_usage() {
    let deployment = Deployment::start(&one_tenant(LIMITS)).await;
    let body = ask("[[output_tokens=20]]", &json!({ "stream": true }));
    let response = deployment.post(PATH, "t", &body).send().await.expect("an answer");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let events = Events::of(response).rest().await;
    let (name, last) = events.last().expect("events");
    let last: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!((name.as_str(), &last["type"]), ("response.completed", &json!("response.completed")));
    assert_eq!(last["response"]["usage"]["output_tokens"], 20);
    assert_eq!(last["sequence_number"], events.len() - 1);
    let input = last["response"]["usage"]["input_tokens"].as_u64().expect("a count");
    assert_eq!(used(&deployment.quota("t").await, "tokens_per_minute"), input + 20);
}

#[tokio::test]
async fn a_stream_that_fails_ends_with_an_error() {
    let deployment = Deployment::start(&two_tenants("limits = { requests_per_minute = 100 }")).await;
    let body = ask("[[output_tokens=200]]", &json!({ "stream": true, "model": "breaks" }));
    let events = Events::of(deployment.post(PATH, "t", &body).send().await.expect("an answer")).rest().await;
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((names[0], &names[names.len() - 2..]), ("response.created", &["error", "response.failed"][..]));
}

#[tokio::test]
async fn parameters_that_need_stored_responses_are_refused() {
    let deployment = Deployment::start(&one_tenant(LIMITS)).await;
    let answer = deployment.ask(PATH, "t", &ask("Hi", &json!({ "previous_response_id": "resp_1" }))).await;
    assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!("previous_response_id")));
    assert_eq!(Answer::to(deployment.get("/v1/responses/resp_1", "t")).await.status, 404);
    assert_eq!(used(&deployment.quota("t").await, "requests_per_minute"), 0);
}

#[tokio::test]
async fn a_response_that_opts_in_becomes_a_job_whose_result_is_a_response() {
    let deployment = Deployment::with_tenants("limits = { requests_per_minute = 1 }").await;
    let body = ask("[[output_tokens=5]]", &json!({ "instructions": "Be brief." }));
    assert_eq!(deployment.ask_respond_async(PATH, "t", &body).await.status, 200, "there is room");
    let accepted = deployment.ask_respond_async(PATH, "t", &body).await;
    assert_eq!((accepted.status, deployment.messages_in(JOB_QUEUE).await), (202, 1));
    let id = accepted.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(deployment.final_status(&id).await, "succeeded");
    let response = deployment.result("t", &id).await.json();
    assert_eq!((&response["id"], &response["object"]), (&json!(format!("resp_{id}")), &json!("response")));
    assert_eq!((&response["status"], &response["instructions"]), (&json!("completed"), &json!("Be brief.")));
}
