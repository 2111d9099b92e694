//! Resources that a request names: buckets, guardrails and projects. The broker would use them with
//! its own rights, so each tenant names only what its operator has listed.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::{
    Deployment,
    answer::{Answer, used},
    key,
};

/// Models of three formats, and one whose format is not known.
const MODELS: [(&str, &str); 4] = [
    ("claude", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
    ("nova", "us.amazon.nova-pro-v1:0"),
    ("gpt", "openai.gpt-oss-120b-1:0"),
    ("pegasus", "twelvelabs.pegasus-1-2-v1:0"),
];

/// Settings with the tenant `t`, which has `fields` (TOML), and all [`MODELS`].
fn settings(fields: &str) -> String {
    let model = |(name, id): (&str, &str)| {
        format!(
            "[[models]]\nname = \"{name}\"\nmax_output_tokens = 1000\n[[models.ladder]]\nname = \"only\"\n\
             kind = \"on_demand\"\nmodel_id = \"{id}\"\nprices = {{ input = 1.0, output = 2.0 }}\n"
        )
    };
    let keys = format!("[keys]\nt = \"{}\"\n", key("t"));
    format!("{keys}[simulator]\ncall_log = true\n[[tenants]]\nname = \"t\"\n{fields}\n{}", MODELS.map(model).concat())
}

/// Returns a Converse body with these blocks.
fn converse(content: Value) -> Value {
    json!({ "messages": [{ "role": "user", "content": content }], "inferenceConfig": { "maxTokens": 9 } })
}

/// Returns each place of a request that can name an object of S3: the path, and the body with
/// `location` at that place.
fn places(location: &Value) -> Vec<(&'static str, Value)> {
    let source = json!({ "s3Location": location });
    let media = |kind: &str, format: &str| json!({ kind: { "format": format, "name": "d", "source": source } });
    let bodies = |body: Value| {
        let counted = json!({ "input": { "converse": body } });
        [
            ("/model/nova/converse", body.clone()),
            ("/model/nova/converse-stream", body),
            ("/model/nova/count-tokens", counted),
        ]
    };
    let mut places = Vec::new();
    for (kind, format) in [("image", "png"), ("document", "pdf"), ("video", "mp4"), ("audio", "mp3")] {
        places.extend(bodies(converse(json!([media(kind, format), { "text": "describe it" }]))));
    }
    let mut in_result = converse(json!([{ "text": "call" }]));
    in_result["toolConfig"] = json!({ "tools": [{ "toolSpec": { "name": "t", "inputSchema": { "json": {} } } }] });
    let messages = in_result["messages"].as_array_mut().expect("messages");
    let call = json!({ "toolUse": { "toolUseId": "1", "name": "t", "input": {} } });
    messages.push(json!({ "role": "assistant", "content": [call] }));
    let result = json!({ "toolResult": { "toolUseId": "1", "content": [media("video", "mp4")] } });
    messages.push(json!({ "role": "user", "content": [result] }));
    places.extend(bodies(in_result));
    let mut additional = converse(json!([{ "text": "x" }]));
    additional["additionalModelRequestFields"] = json!({ "a": [{ "b": source }] });
    places.extend(bodies(additional));

    let nova = json!({ "messages": [{ "role": "user", "content": [media("image", "png"), { "text": "x" }] }] });
    let counted = json!({ "input": { "invokeModel": { "body": STANDARD.encode(nova.to_string()) } } });
    places.extend([("/model/nova/invoke", nova.clone()), ("/model/nova/invoke-with-response-stream", nova)]);
    places.push(("/model/nova/count-tokens", counted));
    let claude = json!([{ "type": "image", "source": { "type": "s3", "s3Location": location } }]);
    let claude = json!({ "model": "claude", "max_tokens": 9, "anthropic_version": "bedrock-2023-05-31",
        "messages": [{ "role": "user", "content": claude }] });
    places.extend([("/v1/messages", claude.clone()), ("/v1/messages/count_tokens", claude.clone())]);
    places.push(("/model/claude/invoke", claude));
    let gpt = json!([{ "type": "video", "s3_location": location }]);
    places.push(("/model/gpt/invoke", json!({ "messages": [{ "role": "user", "content": gpt }] })));
    places.push(("/model/pegasus/invoke", json!({ "inputPrompt": "x", "mediaSource": source })));
    places
}

impl Deployment {
    /// Returns the requests that reached the simulator, by their end.
    async fn calls(&self) -> Vec<Value> {
        let url = format!("{}/_sim/calls", self.world.stand_ins.bedrock_url());
        Answer::to(self.http.get(url)).await.json()["calls"].as_array().expect("calls").clone()
    }
}

/// Asserts that `answer` is a refusal with this status whose message contains `text`.
fn assert_refusal(answer: &Answer, status: u16, text: &str, case: &str) {
    assert_eq!(answer.status, status, "{case}: {}", answer.text());
    assert!(answer.text().contains(text), "{case}: {}", answer.text());
}

#[tokio::test]
async fn a_tenant_without_buckets_names_no_object_anywhere_in_a_request() {
    let deployment = Deployment::start(&settings("")).await;
    let mut passed = Vec::new();
    for (path, body) in places(&json!({ "uri": "s3://spillway-bodies/roomy/file-0123", "bucketOwner": "123456789012" }))
    {
        let answer = deployment.ask(path, "t", &body).await;
        if answer.status != 403 {
            passed.push(format!("{} {path} {body}", answer.status));
        }
    }
    assert_eq!(passed, Vec::<String>::new());
    assert_eq!(deployment.calls().await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_tenant_without_guardrails_names_none_in_any_way() {
    let deployment = Deployment::start(&settings("")).await;
    let mut passed = Vec::new();
    for request in guardrail_requests(&deployment, "gr1", "1") {
        let answer = Answer::to(request).await;
        if answer.status != 403 {
            passed.push(format!("{} {}", answer.status, answer.text()));
        }
    }
    assert_eq!(passed, Vec::<String>::new());
    assert_eq!(deployment.calls().await, Vec::<Value>::new());
}

/// Returns a request for each way in which a caller can name a guardrail.
fn guardrail_requests(deployment: &Deployment, id: &str, version: &str) -> Vec<reqwest::RequestBuilder> {
    let text = json!({ "source": "INPUT", "content": [{ "text": { "text": "harmless" } }] });
    let path = format!("/guardrail/{}/version/{version}/apply", id.replace(':', "%3A").replace('/', "%2F"));
    let mut requests = vec![deployment.post(&path, "t", &text)];
    let mut body = converse(json!([{ "text": "hello" }]));
    body["guardrailConfig"] = json!({ "guardrailIdentifier": id, "guardrailVersion": version });
    for path in ["/model/nova/converse", "/model/nova/converse-stream"] {
        requests.push(deployment.post(path, "t", &body));
    }
    let native = json!({ "messages": [{ "role": "user", "content": [{ "text": "hello" }] }] });
    for path in ["/model/nova/invoke", "/model/nova/invoke-with-response-stream"] {
        let request = deployment.post(path, "t", &native).header("x-amzn-bedrock-guardrailidentifier", id);
        requests.push(request.header("x-amzn-bedrock-guardrailversion", version));
        let mut body = native.clone();
        body["amazon-bedrock-guardrailConfig"] = json!({ "guardrailIdentifier": id, "guardrailVersion": version });
        requests.push(deployment.post(path, "t", &body));
    }
    requests
}

#[tokio::test]
async fn no_project_of_the_account_is_billed_because_a_caller_names_it() {
    let deployment = Deployment::start(&settings("")).await;
    let mut body = converse(json!([{ "text": "hello" }]));
    body["projectIdentifier"] = json!("proj-of-another-tenant");
    let native = json!({ "messages": [{ "role": "user", "content": [{ "text": "hello" }] }] });
    for path in ["converse", "converse-stream", "invoke", "invoke-with-response-stream"] {
        let is_converse = path.starts_with("converse");
        let request = deployment.post(&format!("/model/nova/{path}"), "t", if is_converse { &body } else { &native });
        let request = match is_converse {
            true => request,
            false => request.header("x-amzn-bedrock-projectidentifier", "proj-of-another-tenant"),
        };
        assert_refusal(&Answer::to(request).await, 400, "project", path);
    }
    assert_eq!(deployment.calls().await, Vec::<Value>::new());
}

/// Fields of a tenant that may name one bucket and one guardrail. The broker's own bucket is listed
/// as well.
const LISTED: &str = "buckets = [\"shared-media\", \"spillway-bodies\"]\n\
    guardrails = [{ id = \"gr1\", usd_per_1000_text_units = 0.15, usd_per_1000_images = 0.75 }]\n\
    limits = { requests_per_minute = 100, in_flight = 9, microusd_per_month = 2_000_000 }";

#[tokio::test]
async fn a_tenant_names_objects_of_its_buckets_in_one_form_only() {
    let deployment = Deployment::start(&settings(LISTED)).await;
    let cases = [
        ("s3://shared-media/folder/a.mp4", None),
        ("s3://shared-media-2/a.mp4", Some(403)),
        ("s3://other/a.mp4", Some(403)),
        ("S3://shared-media/a.mp4", Some(400)),
        ("s3://shared-media@other/a.mp4", Some(400)),
        ("s3://shared-media/../other/a.mp4", Some(400)),
        ("arn:aws:s3:us-east-1:123456789012:accesspoint/point/object/a.mp4", Some(400)),
        ("https://shared-media.s3.amazonaws.com/a.mp4", Some(400)),
    ];
    for (uri, refused) in cases {
        for (path, body) in places(&json!({ "uri": uri })) {
            let answer = deployment.ask(path, "t", &body).await;
            match refused {
                Some(403) => {
                    assert_refusal(&answer, 403, "is not among the buckets of tenant t", &format!("{path} {body}"))
                }
                Some(status) => {
                    assert_refusal(&answer, status, "is not of the form s3://bucket/key", &format!("{path} {body}"))
                }
                // The simulator has no models that read media from InvokeModel, except Nova.
                None if path.contains("nova") || path.starts_with("/v1") => {
                    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
                }
                None => assert_ne!(answer.status, 403, "{path}: {}", answer.text()),
            }
        }
    }
    let quota = deployment.quota_when("t", |quota| used(quota, "in_flight") == 0).await;
    let answered = deployment.calls().await.iter().filter(|call| call["ending"] == "succeeded").count();
    assert_eq!(used(&quota, "requests_per_minute"), answered as u64, "what is refused is not charged: {quota}");
}

#[tokio::test]
async fn the_file_of_another_tenant_cannot_be_read_even_if_the_operator_lists_the_brokers_bucket() {
    let deployment = Deployment::start(&settings(LISTED)).await;
    let bucket = deployment.world.app.own_bucket().expect("a bucket").to_owned();
    assert_eq!(bucket, "spillway-bodies");
    let file = "--b\r\ncontent-disposition: form-data; name=purpose\r\n\r\nbatch\r\n--b\r\n\
        content-disposition: form-data; name=file; filename=\"secret.jsonl\"\r\n\r\n{}\n\r\n--b--\r\n";
    let request = deployment.http.post(format!("{}/v1/files", deployment.world.url)).bearer_auth(key("t"));
    let request = request.header("content-type", "multipart/form-data; boundary=b").body(file);
    let file = Answer::to(request).await.json();
    let id = file["id"].as_str().unwrap_or_else(|| panic!("no id: {file}"));
    for (path, body) in places(&json!({ "uri": format!("s3://{bucket}/t/{id}") })) {
        assert_refusal(&deployment.ask(path, "t", &body).await, 403, "is not among the buckets", path);
    }
    assert_eq!(deployment.calls().await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_job_names_only_what_its_tenant_may_name_when_it_runs() {
    let deployment = Deployment::start(&settings(&LISTED.replace("per_minute = 100", "per_minute = 1"))).await;
    let (path, body) = places(&json!({ "uri": "s3://shared-media/a.png" })).remove(0);
    assert_eq!(deployment.ask(path, "t", &body).await.status, 200);
    let id = deployment.submit(path, "t", &body).await;
    let operator = deployment.another_app().await.registry;
    let mut tenant = operator.tenants().await.expect("tenants").remove(0);
    tenant.buckets.clear();
    operator.put_tenant(&tenant).await.expect("written");
    assert_eq!(deployment.final_status(&id).await, "failed");
    assert_refusal(&deployment.result("t", &id).await, 403, "is not among the buckets", path);
    assert_eq!(deployment.calls().await.len(), 1);
}

#[tokio::test]
async fn a_guardrail_is_applied_if_it_is_listed_and_an_unlisted_one_does_not_show_whether_it_exists() {
    let guardrails = "[[simulator.guardrails]]\nid = \"gr1\"\n[[simulator.guardrails]]\nid = \"gr2\"\n";
    let deployment = Deployment::start(&format!("{}{guardrails}", settings(LISTED))).await;
    let arn = "arn:aws:bedrock:us-east-1:123456789012:guardrail/gr1";
    for id in ["gr1", arn] {
        for request in guardrail_requests(&deployment, id, "1") {
            let answer = Answer::to(request).await;
            // No format has a guardrail in the body of InvokeModel, but the broker lets it pass.
            let is_passed = answer.status == 200 || answer.text().contains("amazon-bedrock-guardrailConfig");
            assert!(is_passed, "{}", answer.text());
        }
    }
    let calls = deployment.calls().await.len();
    for (id, version) in [("gr1", "DRAFT"), ("gr1", "0"), ("gr1", "draft"), ("gr2", "1"), ("gr3", "1"), ("GR1", "1")] {
        for request in guardrail_requests(&deployment, id, version) {
            let text = "is not among the guardrails of tenant t";
            assert_refusal(&Answer::to(request).await, 403, text, &format!("{id} {version}"));
        }
    }
    assert_eq!(deployment.calls().await.len(), calls);
}

#[tokio::test]
async fn the_default_project_is_the_same_as_none() {
    let deployment = Deployment::start(&settings("")).await;
    let mut body = converse(json!([{ "text": "hello" }]));
    body["projectIdentifier"] = json!("default");
    let native = json!({ "messages": [{ "role": "user", "content": [{ "text": "hello" }] }] });
    let request = deployment.post("/model/nova/invoke", "t", &native);
    for request in [
        deployment.post("/model/nova/converse", "t", &body),
        request.header("x-amzn-bedrock-projectidentifier", "default"),
    ] {
        assert_eq!(Answer::to(request).await.status, 200);
    }
    let projects: Vec<_> = deployment.calls().await.into_iter().map(|call| call["project"].clone()).collect();
    assert_eq!(projects, [Value::Null, Value::Null]);
}

/// Returns the body of ApplyGuardrail with these texts and one image.
fn content(texts: &[&str]) -> Value {
    let texts = texts.iter().map(|text| json!({ "text": { "text": text } }));
    let image = json!({ "image": { "format": "png", "source": { "bytes": "AAAA" } } });
    json!({ "source": "INPUT", "content": texts.chain([image]).collect::<Value>() })
}

#[tokio::test]
async fn a_guardrail_costs_its_text_units_and_images_at_most_what_was_reserved() {
    let deployment = Deployment::start(&settings(&LISTED.replace("2_000_000 }", "2_000 }"))).await;
    let path = "/guardrail/gr1/version/1/apply";
    let spent = async || deployment.quota("t").await["settled"]["cost_microusd"].as_u64().unwrap_or_default();
    // Bedrock bills one unit for two short texts, and the reply reports no image.
    assert_eq!(deployment.ask(path, "t", &content(&["a", "b"])).await.status, 200);
    assert_eq!(spent().await, 150);
    assert_eq!(deployment.ask(path, "t", &content(&["é".repeat(2_500).as_str()])).await.status, 200);
    assert_eq!(spent().await, 150 + 3 * 150);
    // 600 of 2,000 are spent. Ten units and an image, which cost 2,250, never fit. Six units and an
    // image do not fit now.
    let refused = deployment.ask(path, "t", &content(&["x".repeat(10_000).as_str()])).await;
    assert_refusal(&refused, 400, "can never be admitted", "larger than the budget");
    assert_eq!(refused.header("x-amzn-errortype"), "ServiceQuotaExceededException");
    let refused = deployment.ask(path, "t", &content(&["x".repeat(6_000).as_str()])).await;
    assert_refusal(&refused, 400, "microusd_per_month", "larger than the rest");
    assert_eq!(spent().await, 600);
}

#[tokio::test]
async fn a_guardrail_call_that_bedrock_refuses_costs_nothing() {
    let deployment = Deployment::start(&settings(LISTED)).await;
    let invalid = json!({ "source": "SIDEWAYS", "content": [{ "text": { "text": "a" } }] });
    let refused = deployment.ask("/guardrail/gr1/version/1/apply", "t", &invalid).await;
    assert_refusal(&refused, 400, "source", "an unknown source");
    let quota = deployment.quota("t").await;
    assert_eq!((used(&quota, "requests_per_minute"), used(&quota, "microusd_per_month")), (0, 0));
}

/// Decisions in the documentation.
const MEMBERS: &str = include_str!("../docs/members.md");

/// Returns the rows of the table below a heading: a member or header, and whether it is refused.
fn decisions(heading: &str) -> Vec<(&'static str, bool)> {
    let section = MEMBERS.split("\n## ").find_map(|section| section.strip_prefix(heading)?.strip_prefix('\n'));
    let rows = section.unwrap_or_else(|| panic!("no section {heading}")).lines();
    let row = |row: &'static str| {
        let (member, rest) = row.strip_prefix("| `")?.split_once("` | ")?;
        Some((member, rest.starts_with("refused |")))
    };
    rows.filter_map(row).collect()
}

#[tokio::test]
async fn every_member_of_converse_is_treated_as_the_documentation_says() {
    let deployment = Deployment::start(&settings(LISTED)).await;
    let sample = |member: &str| match member {
        "messages" => json!([{ "role": "user", "content": [{ "text": "hello" }] }]),
        "system" => json!([{ "text": "be brief" }]),
        "inferenceConfig" => json!({ "maxTokens": 9 }),
        "toolConfig" => json!({ "tools": [{ "toolSpec": { "name": "t", "inputSchema": { "json": {} } } }] }),
        "guardrailConfig" => json!({ "guardrailIdentifier": "gr1", "guardrailVersion": "1" }),
        "projectIdentifier" => json!("p"),
        "additionalModelRequestFields" => json!({ "top_k": 5 }),
        "promptVariables" => json!({ "v": { "text": "x" } }),
        "additionalModelResponseFieldPaths" => json!(["/stop_sequence"]),
        "requestMetadata" => json!({ "team": "a" }),
        "performanceConfig" => json!({ "latency": "standard" }),
        "serviceTier" => json!({ "type": "default" }),
        "outputConfig" => json!({ "effort": "low" }),
        "memberOfTomorrow" => json!({}),
        member => panic!("no sample of {member}"),
    };
    let mut members = decisions("Converse and ConverseStream");
    assert!(members.len() > 10, "{members:?}");
    members.retain(|(member, _)| *member != "modelId");
    members.push(("memberOfTomorrow", true));
    for (member, is_refused) in members {
        let mut body = converse(json!([{ "text": "hello" }]));
        body[member] = sample(member);
        let status = if is_refused { 400 } else { 200 };
        for path in ["/model/nova/converse", "/model/nova/converse-stream"] {
            let answer = deployment.ask(path, "t", &body).await;
            assert_eq!(answer.status, status, "{member}: {}", answer.text());
            assert!(!is_refused || answer.text().contains(member), "{member}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn every_header_of_invoke_model_is_treated_as_the_documentation_says() {
    let deployment = Deployment::start(&settings(LISTED)).await;
    let sample = |header: &str| match header {
        "Content-Type" | "Accept" | "X-Amzn-Bedrock-Accept" => "application/json",
        "X-Amzn-Bedrock-Trace" => "ENABLED",
        "X-Amzn-Bedrock-GuardrailIdentifier" => "gr1",
        "X-Amzn-Bedrock-GuardrailVersion" => "1",
        "X-Amzn-Bedrock-PerformanceConfig-Latency" => "standard",
        "X-Amzn-Bedrock-Service-Tier" => "default",
        "X-Amzn-Bedrock-Request-Metadata" => "{\"team\": \"a\"}",
        "X-Amzn-Bedrock-ProjectIdentifier" => "p",
        header => panic!("no sample of {header}"),
    };
    let body = json!({ "messages": [{ "role": "user", "content": [{ "text": "hello" }] }] });
    let headers = decisions("InvokeModel and InvokeModelWithResponseStream");
    assert!(headers.len() > 10, "{headers:?}");
    for (header, is_refused) in headers.into_iter().filter(|(name, _)| !["modelId", "body"].contains(name)) {
        for path in ["/model/nova/invoke", "/model/nova/invoke-with-response-stream"] {
            let mut request = deployment.post(path, "t", &body).header(header, sample(header));
            if header == "X-Amzn-Bedrock-GuardrailIdentifier" {
                request = request.header("X-Amzn-Bedrock-GuardrailVersion", "1");
            }
            let answer = Answer::to(request).await;
            assert_eq!(answer.status, if is_refused { 400 } else { 200 }, "{header}: {}", answer.text());
        }
    }
}
