//! Jobs: submitting them, waiting for their end, and counting their messages.

use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName::{
    self, ApproximateNumberOfMessages as Visible, ApproximateNumberOfMessagesDelayed as Delayed,
    ApproximateNumberOfMessagesNotVisible as Hidden,
};
use bytes::Bytes;
use serde_json::{Value, json};
use spillway::{
    app::{Clients, Endpoints, loopback},
    config::BedrockEndpoints,
    dialect::Api,
    job::{Job, NewJob, Priority, StoredCall},
    quota::Charge,
    stored_headers::StoredHeaders,
    tenant::Class,
    units::{Millis, UnixMs},
};

use super::{Deployment, answer::Answer, key};

/// Name of the job queue.
pub const JOB_QUEUE: &str = "spillway-jobs";

/// Name of the queue of dead letters, which has a message for each job that failed permanently.
pub const DEAD_LETTER_QUEUE: &str = "spillway-jobs-dead";

/// Returns a job of the tenant `t` that is ready at `now` and calls `api`.
pub fn new_job(api: Api, body: &Value, now: UnixMs) -> NewJob {
    NewJob {
        id: None,
        tenant: "t".into(),
        call: StoredCall {
            api,
            model: None,
            path: api.path().into(),
            base_path: String::new(),
            headers: StoredHeaders::default(),
            stream: body["stream"] == true,
        },
        body: Bytes::from(body.to_string()),
        created_at: now,
        ready_at: now,
        expires_at: now + Millis::from_s(3_600),
        is_parked: false,
        priority: Priority::Normal,
        class: Class::Batch,
        member: None,
        wait: None,
    }
}

/// The charge of one request without tokens or cost.
pub const ONE_REQUEST: Charge = Charge { requests: 1, ..Charge::ZERO };

/// Returns settings with the tenants `t` and `u`, which both have `fields` (TOML), and three
/// models: `m` answers, `refuses` rejects every request as invalid, and `breaks` cuts every stream.
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
    /// Starts a deployment of [`two_tenants`] at noon.
    pub async fn with_tenants(fields: &str) -> Self {
        let deployment = Self::start(&two_tenants(fields)).await;
        deployment.advance_to_noon();
        deployment
    }

    /// Sends a request with `Prefer: respond-async`.
    pub async fn ask_respond_async(&self, path: &str, tenant: &str, body: &Value) -> Answer {
        Answer::to(self.post(path, tenant, body).header("prefer", "respond-async")).await
    }

    /// Sends a request with `Prefer: respond-async` that finds no room. Returns the id of its job.
    pub async fn submit(&self, path: &str, tenant: &str, body: &Value) -> String {
        let accepted = self.ask_respond_async(path, tenant, body).await;
        assert_eq!(accepted.status, 202, "{}", accepted.text());
        accepted.json()["id"].as_str().expect("an id").to_owned()
    }

    /// Returns `GET /v1/jobs/{id}`.
    pub async fn job(&self, tenant: &str, id: &str) -> Answer {
        Answer::to(self.get(&format!("/v1/jobs/{id}"), tenant)).await
    }

    /// Returns `GET /v1/jobs/{id}/result`.
    pub async fn result(&self, tenant: &str, id: &str) -> Answer {
        Answer::to(self.get(&format!("/v1/jobs/{id}/result"), tenant)).await
    }

    /// Returns `DELETE /v1/jobs/{id}`.
    pub async fn cancel(&self, tenant: &str, id: &str) -> Answer {
        let url = format!("{}/v1/jobs/{id}", self.world.url);
        Answer::to(self.http.delete(url).bearer_auth(key(tenant))).await
    }

    /// Returns the job from the store.
    pub async fn stored(&self, id: &str) -> Job {
        self.world.app.jobs.get(id).await.expect("the store").expect("a job")
    }

    /// Returns the stored job as soon as it fulfils `condition`. Time passes quickly until then.
    pub async fn stored_when(&self, id: &str, condition: impl Fn(&Job) -> bool) -> Job {
        let polling = async {
            loop {
                let job = self.stored(id).await;
                if condition(&job) {
                    return job;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        self.quickly(polling).await
    }

    /// Advances the clocks until the job is due and then until it ends. Returns its final status.
    pub async fn final_status(&self, id: &str) -> &'static str {
        let job = self.stored(id).await;
        // A message is never early because its delay is rounded up to a second.
        self.world.advance((job.ready_at - self.world.app.clock.now()).as_ms() + 1_000);
        self.stored_when(id, |job| job.status.is_final()).await.status.name()
    }

    /// Returns a client of the queues.
    pub async fn sqs(&self) -> aws_sdk_sqs::Client {
        self.clients().await.sqs
    }

    /// Returns clients of the stand-ins.
    pub async fn clients(&self) -> Clients {
        let endpoints = Endpoints {
            dynamodb: self.world.stand_ins.dynamodb_url(),
            sqs: self.world.stand_ins.sqs_url(),
            s3: self.world.stand_ins.s3_url(),
            bedrock_runtime: self.world.stand_ins.bedrock_url(),
        };
        Clients::new(&loopback().await, Some(&endpoints), BedrockEndpoints::default()).expect("clients")
    }

    /// Returns the number of messages in a queue, whether or not they can be received now.
    pub async fn messages_in(&self, queue: &str) -> u64 {
        self.messages(queue, vec![Visible, Delayed, Hidden]).await
    }

    /// Returns the number of messages of a queue that have been received and not yet deleted.
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

    /// Returns the reasons of all dead letters, and makes the dead letters visible again.
    pub async fn reasons(&self) -> Vec<String> {
        let dead_letters = self.world.app.dead_letters.as_ref().expect("a queue");
        let letters = dead_letters.receive_dead_letters(Millis::from_s(30)).await.expect("letters");
        dead_letters.make_visible(&letters).await.expect("shown");
        letters.into_iter().map(|letter| letter.reason.expect("a reason")).collect()
    }

    /// Sets the faults of the simulated models, in the format of the simulator's control route. An
    /// empty list removes all faults.
    pub async fn set_model_faults(&self, faults: &[Value]) {
        let url = format!("{}/_sim/faults", self.world.stand_ins.bedrock_url());
        self.http.delete(&url).send().await.expect("an answer").error_for_status().expect("no faults");
        for fault in faults {
            self.http.post(&url).json(fault).send().await.expect("an answer").error_for_status().expect("a fault");
        }
    }
}

/// Returns the event with which SQS invokes the drain Lambda, with one message for each of
/// `job_ids`.
pub fn batch_of(job_ids: &[&str]) -> spillway::drain::DrainEvent {
    let record = |id: &&str| json!({ "messageId": format!("message-{id}"), "receiptHandle": "none", "body": id });
    serde_json::from_value(json!({ "Records": job_ids.iter().map(record).collect::<Vec<_>>() })).expect("an event")
}
