//! What operators do with jobs that failed for good: look at them, bring them back, throw them away.

use clap::Parser;
use serde_json::json;
use spillway_command::admin::{self, Admin};

use crate::support::{
    Deployment, chat,
    jobs::{DEAD, JOBS, ONE},
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
    /// What `spillway jobs …` prints, and how it fails.
    async fn jobs_command(&self, arguments: &[&str]) -> (String, Option<String>) {
        let cli = Cli::try_parse_from(["spillway", "jobs"].iter().chain(arguments)).expect("a command");
        let mut out = Vec::new();
        let app = &self.world.app;
        let done = admin::execute(cli.command, app, app.clock.now_ms(), &mut out).await;
        (String::from_utf8(out).expect("text"), done.err().map(|error| format!("{error:#}")))
    }

    /// A job of `tenant` that its model refuses.
    async fn refused_job(&self, tenant: &str) -> String {
        self.disturb(&[json!({ "error": "ValidationException" })]).await;
        let _running = self.occupy(tenant, ONE, 30_000).await;
        let id = self.submit(CHAT, tenant, &chat(5, 5)).await;
        assert_eq!(self.end_of(&id).await, "failed");
        self.disturb(&[]).await;
        id
    }
}

#[tokio::test]
async fn a_failed_job_is_listed_with_its_reason_and_can_be_brought_back() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    let id = deployment.refused_job("t").await;
    eventually("its letter is there", async || deployment.messages_in(DEAD).await == 1).await;
    for _ in 0..2 {
        let (listed, error) = deployment.jobs_command(&["dlq", "list"]).await;
        assert_eq!(error, None);
        let line = listed.lines().nth(1).expect("a letter");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((words[0], words[1], words[2], words[4]), (id.as_str(), "t", "invalid_request", "failed"), "{line}");
        assert!(line.contains(&format!("POST {CHAT}  Bedrock: ")), "{line}");
        assert!(listed.ends_with("1 of 1 dead letters\n"), "looking changes nothing: {listed}");
    }
    let (shown, _) = deployment.jobs_command(&["show", &id]).await;
    for told in [format!("id        {id}"), "status    failed".into(), "attempts  1".into(), "fence     1".into()] {
        assert!(shown.lines().any(|line| line == told), "{told} in {shown}");
    }

    let (told, error) = deployment.jobs_command(&["dlq", "redrive", &id]).await;
    assert_eq!((told, error), (format!("queued {id}\n1 of 1 dead letters\n"), None));
    assert_eq!(deployment.messages_in(DEAD).await, 0);
    assert_eq!(deployment.end_of(&id).await, "succeeded");
    let job = deployment.stored(&id).await;
    assert_eq!((job.attempts, job.fence, job.error), (1, 2, None));
    assert_eq!(deployment.result("t", &id).await.status, 200);
    eventually("no message is left", async || deployment.messages_in(JOBS).await == 0).await;
}

#[tokio::test]
async fn letters_are_chosen_by_job_or_tenant_and_the_others_stay() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    let mut ids = Vec::new();
    for tenant in ["t", "u", "u"] {
        ids.push(deployment.refused_job(tenant).await);
        deployment.world.advance(60_000);
    }
    eventually("their letters are there", async || deployment.messages_in(DEAD).await == 3).await;
    let (listed, _) = deployment.jobs_command(&["dlq", "list", "--tenant", "u"]).await;
    assert!(listed.ends_with("2 of 3 dead letters\n") && !listed.contains(&ids[0]), "{listed}");

    let (told, error) = deployment.jobs_command(&["dlq", "drop", &ids[1], "no-such-job"]).await;
    assert_eq!(told, format!("dropped {}\n1 of 3 dead letters\n", ids[1]));
    assert_eq!(error.as_deref(), Some("found no dead letter for no-such-job"));
    assert_eq!(deployment.stored(&ids[1]).await.status.name(), "failed");

    let (told, error) = deployment.jobs_command(&["dlq", "redrive", "--all", "--tenant", "u"]).await;
    assert_eq!((told, error), (format!("queued {}\n1 of 2 dead letters\n", ids[2]), None));
    assert_eq!(deployment.end_of(&ids[2]).await, "succeeded");
    assert_eq!(deployment.messages_in(DEAD).await, 1);
    let (told, _) = deployment.jobs_command(&["dlq", "drop", "--all"]).await;
    assert_eq!(told, format!("dropped {}\n1 of 1 dead letters\n", ids[0]));
    assert_eq!(deployment.jobs_command(&["dlq", "list"]).await.0, "0 of 0 dead letters\n");
}

#[tokio::test]
async fn a_look_at_a_part_of_the_queue_says_so() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    let dead_letters = deployment.world.app.dead_letters.clone().expect("a queue");
    for letter in 0..25 {
        dead_letters.send(&format!("no job {letter}"), "t", 0).await.expect("sent");
    }
    let (listed, error) = deployment.jobs_command(&["dlq", "list", "--most", "10"]).await;
    assert_eq!(error, None);
    assert!(listed.contains("the queue holds about 25"), "{listed}");
    assert!(!listed.contains("no job"), "what is no id is not shown: {listed}");
    let (_, error) = deployment.jobs_command(&["dlq", "redrive", "--all"]).await;
    assert_eq!(error.as_deref(), Some("handled 0 dead letters, kept 25"));
    let (listed, _) = deployment.jobs_command(&["dlq", "list"]).await;
    assert!(listed.ends_with("25 of 25 dead letters\n"), "{listed}");
}

#[tokio::test]
async fn a_letter_of_a_job_that_goes_on_is_no_reason_to_run_it_twice() {
    let deployment = Deployment::with_tenants(ONE_A_MINUTE).await;
    let _running = deployment.occupy("t", ONE, 30_000).await;
    let id = deployment.submit(CHAT, "t", &chat(5, 5)).await;
    // SQS moves what was received too often, whatever becomes of the job.
    let dead_letters = deployment.world.app.dead_letters.clone().expect("a queue");
    dead_letters.send(&id, "t", 0).await.expect("sent");
    let (listed, _) = deployment.jobs_command(&["dlq", "list"]).await;
    assert!(listed.contains("received_too_often"), "{listed}");
    let (told, error) = deployment.jobs_command(&["dlq", "redrive", &id]).await;
    assert!(told.starts_with(&format!("{id} is queued, not failed")), "{told}");
    assert_eq!(error, None);
    assert_eq!(deployment.end_of(&id).await, "succeeded");
    deployment.world.advance(120_000);
    eventually("no message is left", async || deployment.messages_in(JOBS).await == 0).await;
    assert_eq!(deployment.simulator().await["total"]["requests"], 1);
}
