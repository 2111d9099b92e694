//! Jobs as tests make and watch them.

use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName::{
    self, ApproximateNumberOfMessages as Visible, ApproximateNumberOfMessagesDelayed as Delayed,
    ApproximateNumberOfMessagesNotVisible as Hidden,
};
use bytes::Bytes;
use serde_json::{Value, json};
use spillway::{
    app::{Clients, Endpoints, loopback},
    dialect::Api,
    job::{Call, Job, NewJob, Priority},
    quota::Charge,
    tenant::Class,
};

use super::{Deployment, answer::Answer, key};

/// The queue of jobs.
pub const JOBS: &str = "spillway-jobs";

/// Where the messages of jobs go that failed for good.
pub const DEAD: &str = "spillway-jobs-dead";

/// A job of the tenant `t` that is ready at `now_ms` and asks `path` in OpenAI's dialect.
pub fn new_job(path: &str, body: &Value, now_ms: u64) -> NewJob {
    NewJob {
        id: None,
        tenant: "t".into(),
        call: Call {
            api: Api::at(path).expect("a path that calls a model").api,
            model: None,
            path: path.into(),
            headers: Vec::new(),
            stream: body["stream"] == true,
        },
        body: Bytes::from(body.to_string()),
        created_ms: now_ms,
        ready_ms: now_ms,
        expires_ms: now_ms + 3_600_000,
        priority: Priority::Normal,
        class: Class::Batch,
        member: None,
    }
}

/// One request and nothing else.
pub const ONE: Charge = Charge { requests: 1, minute_tokens: 0, day_tokens: 0, cost_microusd: 0 };

/// Settings with the tenants `t` and `u`, who both have `fields` (TOML), and three models: `m` answers, `refuses` finds
/// every request invalid, `breaks` cuts every stream.
pub fn two_tenants(fields: &str) -> String {
    let tenant = |name: &str| format!("[[tenants]]\nname = \"{name}\"\n{fields}\n");
    let model = |name: &str, model_id: &str| {
        format!(
            "[[models]]\nname = \"{name}\"\ntimeout_ms = 30000\n[[models.ladder]]\nname = \"on-demand\"\n\
             kind = \"on_demand\"\nmodel_id = \"{model_id}\"\n"
        )
    };
    let models = [("m", "sim.model"), ("refuses", "sim.refuses"), ("breaks", "sim.breaks")];
    format!(
        "[keys]\nt = \"{}\"\nu = \"{}\"\n{}{}{}",
        key("t"),
        key("u"),
        tenant("t"),
        tenant("u"),
        models.map(|(name, model_id)| model(name, model_id)).concat()
    )
}

impl Deployment {
    /// Starts [`two_tenants`] at noon.
    pub async fn with_tenants(fields: &str) -> Self {
        let deployment = Self::start(&two_tenants(fields)).await;
        deployment.advance_to_noon();
        deployment
    }

    /// Sends a request that can wait.
    pub async fn ask_patiently(&self, path: &str, tenant: &str, body: &Value) -> Answer {
        Answer::to(self.post(path, tenant, body).header("prefer", "respond-async")).await
    }

    /// Sends a request that can wait and finds no room; gives the job that it becomes.
    pub async fn submit(&self, path: &str, tenant: &str, body: &Value) -> String {
        let accepted = self.ask_patiently(path, tenant, body).await;
        assert_eq!(accepted.status, 202, "{}", accepted.text());
        accepted.json()["id"].as_str().expect("an id").to_owned()
    }

    /// `GET /v1/jobs/{id}`.
    pub async fn job(&self, tenant: &str, id: &str) -> Answer {
        Answer::to(self.get(&format!("/v1/jobs/{id}"), tenant)).await
    }

    /// `GET /v1/jobs/{id}/result`.
    pub async fn result(&self, tenant: &str, id: &str) -> Answer {
        Answer::to(self.get(&format!("/v1/jobs/{id}/result"), tenant)).await
    }

    /// `DELETE /v1/jobs/{id}`.
    pub async fn cancel(&self, tenant: &str, id: &str) -> Answer {
        let url = format!("{}/v1/jobs/{id}", self.world.url);
        Answer::to(self.http.delete(url).bearer_auth(key(tenant))).await
    }

    /// The job as the store has it.
    pub async fn stored(&self, id: &str) -> Job {
        self.world.app.jobs.get(id).await.expect("the store").expect("a job")
    }

    /// The stored job as soon as `is_so` holds for it, while time passes quickly.
    pub async fn stored_when(&self, id: &str, is_so: impl Fn(&Job) -> bool) -> Job {
        let found = async {
            loop {
                let job = self.stored(id).await;
                if is_so(&job) {
                    return job;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        self.quickly(found).await
    }

    /// Lets the time pass until the job is due, then the time that it takes; gives its status in the end.
    pub async fn end_of(&self, id: &str) -> &'static str {
        let job = self.stored(id).await;
        // A message is never early, since its delay is rounded up to a second.
        self.world.advance(job.ready_ms.saturating_sub(self.world.app.clock.now_ms()) + 1_000);
        self.stored_when(id, |job| job.status.is_final()).await.status.name()
    }

    /// A client of the queues.
    pub async fn sqs(&self) -> aws_sdk_sqs::Client {
        self.clients().await.sqs
    }

    /// Clients of the stand-ins.
    pub async fn clients(&self) -> Clients {
        let endpoints = Endpoints {
            dynamodb: self.world.stand_ins.dynamodb_url(),
            sqs: self.world.stand_ins.sqs_url(),
            s3: self.world.stand_ins.s3_url(),
            bedrock_runtime: self.world.stand_ins.bedrock_url(),
        };
        Clients::new(&loopback().await, Some(&endpoints))
    }

    /// How many messages a queue holds, whether or not they can be received now.
    pub async fn messages_in(&self, queue: &str) -> u64 {
        self.messages(queue, vec![Visible, Delayed, Hidden]).await
    }

    /// How many messages of a queue have been received and are not done with.
    pub async fn received_from(&self, queue: &str) -> u64 {
        self.messages(queue, vec![Hidden]).await
    }

    async fn messages(&self, queue: &str, counted: Vec<QueueAttributeName>) -> u64 {
        let sqs = self.sqs().await;
        let url = sqs.get_queue_url().queue_name(queue).send().await.expect("a queue").queue_url.expect("a URL");
        let request = sqs.get_queue_attributes().queue_url(url).set_attribute_names(Some(counted));
        let attributes = request.send().await.expect("an answer").attributes.expect("attributes");
        attributes.values().map(|count| count.parse::<u64>().expect("a number")).sum()
    }

    /// Disturbs the simulated models, as the simulator's control route takes it; the empty list ends all disturbances.
    pub async fn disturb(&self, faults: &[Value]) {
        let url = format!("{}/_sim/faults", self.world.stand_ins.bedrock_url());
        self.http.delete(&url).send().await.expect("an answer").error_for_status().expect("no faults");
        for fault in faults {
            self.http.post(&url).json(fault).send().await.expect("an answer").error_for_status().expect("a fault");
        }
    }
}

/// An event as SQS invokes the drain Lambda with it, with one message for each of `job_ids`.
pub fn batch_of(job_ids: &[&str]) -> spillway::drain::DrainEvent {
    let record = |id: &&str| json!({ "messageId": format!("message-{id}"), "receiptHandle": "none", "body": id });
    serde_json::from_value(json!({ "Records": job_ids.iter().map(record).collect::<Vec<_>>() })).expect("an event")
}
