//! Dead letters: operators list, redrive and drop jobs that failed permanently.

use clap::Parser;
use serde_json::json;
use spillway_command::admin::{self, Admin};

use crate::support::{
    Deployment, chat,
    jobs::{DEAD_LETTER_QUEUE, JOB_QUEUE, ONE_REQUEST},
    time::eventually,
};

const CHAT: &str = "/v1/chat/completions";
const ONE_A_MINUTE: &str = "limits = { requests_per_minute = 1 }";

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Admin,
}

impl Deployment {
    /// Runs `spillway jobs …`. Returns its output and its error, if any.
    async fn jobs_command(&self, arguments: &[&str]) -> (String, Option<String>) {
        let cli = Cli::try_parse_from(["spillway", "jobs"].iter().chain(arguments)).expect("a command");
        let mut out = Vec::new();
        let app = &self.world.app;
        let result = admin::execute(cli.command, app, app.clock.now(), &mut out).await;
        (String::from_utf8(out).expect("text"), result.err().map(|error| format!("{error:#}")))
    }

    /// Submits a job of `tenant` that its model rejects. Returns its id.
    async fn refused_job(&self, tenant: &str) -> String {
        self.set_model_faults(&[json!({ "error": "ValidationException" })]).await;
        let _running = self.occupy(tenant, ONE_REQUEST, 30_000).await;
        let id = self.submit(CHAT, tenant, &chat(5, 5)).await;
        assert_eq!(self.final_status(&id).await, "failed");
        self.set_model_faults(&[]).await;
        id
    }
}

#[tokio::test]
async fn a_failed_job_is_listed_with_its_reason_and_can_be_redriven() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    let id = deployment.refused_job("t").await;
    eventually("its dead letter arrives", async || deployment.messages_in(DEAD_LETTER_QUEUE).await == 1).await;
    for _ in 0..2 {
        let (listed, error) = deployment.jobs_command(&["dlq", "list"]).await;
        assert_eq!(error, None);
        let line = listed.lines().nth(1).expect("a dead letter");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((words[0], words[1], words[2], words[4]), (id.as_str(), "t", "invalid_request", "failed"), "{line}");
        assert!(line.contains(&format!("POST {CHAT}  Bedrock: ")), "{line}");
        assert!(listed.ends_with("1 of 1 dead letters\n"), "listing changes nothing: {listed}");
    }
    let (shown, _) = deployment.jobs_command(&["show", &id]).await;
    for expected in [format!("id        {id}"), "status    failed".into(), "attempts  1".into(), "fence     1".into()] {
        assert!(shown.lines().any(|line| line == expected), "{expected} in {shown}");
    }

    let (output, error) = deployment.jobs_command(&["dlq", "redrive", &id]).await;
    assert_eq!((output, error), (format!("queued {id}\n1 of 1 dead letters\n"), None));
    assert_eq!(deployment.messages_in(DEAD_LETTER_QUEUE).await, 0);
    assert_eq!(deployment.final_status(&id).await, "succeeded");
    let job = deployment.stored(&id).await;
    assert_eq!((job.attempts, job.fence, job.error), (1, 2, None));
    assert_eq!(deployment.result("t", &id).await.status, 200);
    eventually("no message is left", async || deployment.messages_in(JOB_QUEUE).await == 0).await;
}

#[tokio::test]
async fn commands_select_dead_letters_by_job_or_tenant_and_keep_the_rest() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    let mut ids = Vec::new();
    for tenant in ["t", "u", "u"] {
        ids.push(deployment.refused_job(tenant).await);
        deployment.world.advance(60_000);
    }
    eventually("their dead letters arrive", async || deployment.messages_in(DEAD_LETTER_QUEUE).await == 3).await;
    let (listed, _) = deployment.jobs_command(&["dlq", "list", "--tenant", "u"]).await;
    assert!(listed.ends_with("2 of 3 dead letters\n") && !listed.contains(&ids[0]), "{listed}");

    let (output, error) = deployment.jobs_command(&["dlq", "drop", &ids[1], "no-such-job"]).await;
    assert_eq!(output, format!("dropped {}\n1 of 3 dead letters\n", ids[1]));
    assert_eq!(error.as_deref(), Some("found no dead letter for no-such-job"));
    assert_eq!(deployment.stored(&ids[1]).await.status.name(), "failed");

    let (output, error) = deployment.jobs_command(&["dlq", "redrive", "--all", "--tenant", "u"]).await;
    assert_eq!((output, error), (format!("queued {}\n1 of 2 dead letters\n", ids[2]), None));
    assert_eq!(deployment.final_status(&ids[2]).await, "succeeded");
    assert_eq!(deployment.messages_in(DEAD_LETTER_QUEUE).await, 1);
    let (output, _) = deployment.jobs_command(&["dlq", "drop", "--all"]).await;
    assert_eq!(output, format!("dropped {}\n1 of 1 dead letters\n", ids[0]));
    assert_eq!(deployment.jobs_command(&["dlq", "list"]).await.0, "0 of 0 dead letters\n");
}

#[tokio::test]
async fn a_partial_listing_reports_the_size_of_the_queue() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    let dead_letters = deployment.world.app.dead_letters.clone().expect("a queue");
    for letter in 0..25 {
        dead_letters.send(&format!("no job {letter}"), "t", spillway::units::Millis::ZERO).await.expect("sent");
    }
    let (listed, error) = deployment.jobs_command(&["dlq", "list", "--most", "10"]).await;
    assert_eq!(error, None);
    assert!(listed.contains("the queue holds about 25"), "{listed}");
    assert!(!listed.contains("no job"), "a body that is not a job id is not shown: {listed}");
    let (_, error) = deployment.jobs_command(&["dlq", "redrive", "--all"]).await;
    assert_eq!(error.as_deref(), Some("handled 0 dead letters, kept 25"));
    let (listed, _) = deployment.jobs_command(&["dlq", "list"]).await;
    assert!(listed.ends_with("25 of 25 dead letters\n"), "{listed}");
}

#[tokio::test]
async fn a_dead_letter_of_an_unfinished_job_does_not_run_the_job_twice() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    let _running = deployment.occupy("t", ONE_REQUEST, 30_000).await;
    let id = deployment.submit(CHAT, "t", &chat(5, 5)).await;
    // SQS moves a message that was received too often, whatever the state of its job.
    let dead_letters = deployment.world.app.dead_letters.clone().expect("a queue");
    dead_letters.send(&id, "t", spillway::units::Millis::ZERO).await.expect("sent");
    let (listed, _) = deployment.jobs_command(&["dlq", "list"]).await;
    assert!(listed.contains("received_too_often"), "{listed}");
    let (output, error) = deployment.jobs_command(&["dlq", "redrive", &id]).await;
    assert!(output.starts_with(&format!("{id} is queued, not failed")), "{output}");
    assert_eq!(error, None);
    assert_eq!(deployment.final_status(&id).await, "succeeded");
    deployment.world.advance(120_000);
    eventually("no message is left", async || deployment.messages_in(JOB_QUEUE).await == 0).await;
    assert_eq!(deployment.simulator().await["total"]["requests"], 1);
}
