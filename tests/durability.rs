//! A killed process loses no accepted job, and a process that is asked to stop cuts off no request.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{
    answer::{Answer, Events},
    chat, key, one_tenant, process,
    time::{eventually, happens_within},
};

/// A running `spillway local`, which is killed when dropped.
struct Process {
    child: Child,
    url: String,
    /// Variables with which a command uses the services of the process.
    variables: Vec<(String, String)>,
}

impl Process {
    /// Starts the binary as a user does. Returns when it reports that it is ready.
    async fn start(config: &Path, data: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spillway"));
        command.args(["local", "--port", "0", "--config"]).arg(config).arg("--data").arg(data);
        let (child, url, variables) = process::until_ready_with_variables(command).await;
        Self { child, url, variables }
    }

    /// Runs a command against the services of the process, as an operator does.
    fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spillway"));
        command.args(arguments).envs(self.variables.iter().map(|(name, value)| (name, value)));
        let output = command.output().expect("the program");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Returns the status of a chat with a key.
    async fn status_of(&self, http: &Client, key: &str, model: &str) -> u16 {
        let mut body = chat(5, 5);
        body["model"] = json!(model);
        let request = http.post(format!("{}/v1/chat/completions", self.url)).bearer_auth(key).json(&body);
        Answer::to(request).await.status
    }

    /// Asks the process to stop, and waits for its end.
    async fn stop(self) {
        self.interrupt();
        assert_eq!(self.exit_code().await, Some(0));
    }

    fn chat(&self, http: &Client, body: &Value) -> RequestBuilder {
        http.post(format!("{}/v1/chat/completions", self.url)).bearer_auth(key("t")).json(body)
    }

    async fn get(&self, http: &Client, path: &str) -> Answer {
        Answer::to(http.get(format!("{}{path}", self.url)).bearer_auth(key("t"))).await
    }

    /// Returns the number of requests in flight according to the quota.
    async fn in_flight(&self, http: &Client) -> u64 {
        let quota = self.get(http, "/v1/quota").await.json();
        crate::support::answer::used(&quota, "in_flight")
    }

    /// Ends the process as a crash does (SIGKILL).
    fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("an exit status");
    }

    /// Asks the process to stop, as Ctrl-C does.
    fn interrupt(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill").success());
    }

    async fn exit_code(mut self) -> Option<i32> {
        let mut status = None;
        eventually("the process ends", async || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        })
        .await;
        status.and_then(|status| status.code())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process has already ended unless its test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A temporary folder with a configuration and the state of the process.
struct Installation {
    folder: tempfile::TempDir,
}

impl Installation {
    fn with_config(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("config.toml"), config).expect("written");
        Self { folder }
    }

    async fn start(&self) -> Process {
        let file = |name: &str| -> PathBuf { self.folder.path().join(name) };
        Process::start(&file("config.toml"), &file("data")).await
    }
}

/// The jobs and results that the clients have seen.
#[derive(Default)]
struct ClientRecord {
    /// Ids of accepted jobs, each with the word that only its answer contains.
    accepted: BTreeMap<String, String>,
    /// Time of the end and answer of each job.
    results: BTreeMap<String, (Value, String)>,
}

impl ClientRecord {
    fn unanswered(&self) -> Vec<String> {
        self.accepted.keys().filter(|id| !self.results.contains_key(*id)).cloned().collect()
    }
}

/// A client of the current process. Its calls return `None` once the process has ended.
#[derive(Clone)]
struct TestClient {
    http: Client,
    url: String,
    record: Arc<Mutex<ClientRecord>>,
}

impl TestClient {
    /// Sends chats with `Prefer: respond-async` in sequence until the process ends.
    async fn load(self, name: String) {
        for number in 0_u32.. {
            if self.ask(format!("{name}-{number}")).await.is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }

    async fn ask(&self, word: String) -> Option<()> {
        let mut body = chat(10, 10);
        body["messages"][0]["content"] = json!(format!("{word} [[output_tokens=10]]"));
        let request = self.http.post(format!("{}/v1/chat/completions", self.url)).bearer_auth(key("t")).json(&body);
        let answer = request.header("prefer", "respond-async").send().await.ok()?;
        if answer.status() == 202 {
            let job: Value = answer.json().await.ok()?;
            let id = job["id"].as_str().expect("an id").to_owned();
            self.record.lock().expect("no panic").accepted.insert(id, word);
        } else {
            assert_eq!(answer.status(), 200);
        }
        Some(())
    }

    /// Collects results until the process ends.
    async fn collect(self) {
        loop {
            let unanswered = self.record.lock().expect("no panic").unanswered();
            for id in unanswered {
                if self.check_result(&id).await.is_none() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Records the job's result, if any. Fails if the result has changed.
    async fn check_result(&self, id: &str) -> Option<()> {
        let (_, job) = self.get(&format!("/v1/jobs/{id}")).await?;
        let job: Value = serde_json::from_str(&job).expect("JSON");
        let was_answered = self.record.lock().expect("no panic").results.contains_key(id);
        match job["status"].as_str() {
            Some("queued" | "running") if !was_answered => return Some(()),
            Some("succeeded") => {}
            _ => panic!("an accepted job failed or started again: {job}"),
        }
        let (status, result) = self.get(&format!("/v1/jobs/{id}/result")).await?;
        let mut record = self.record.lock().expect("no panic");
        let word = &record.accepted[id];
        assert!(status == 200 && result.contains(word.as_str()), "{word}: {result}");
        let result = (job["finished_ms"].clone(), result);
        let recorded = record.results.entry(id.to_owned()).or_insert_with(|| result.clone());
        assert_eq!(*recorded, result, "the answer has changed");
        Some(())
    }

    async fn get(&self, path: &str) -> Option<(u16, String)> {
        let answer = self.http.get(format!("{}{path}", self.url)).bearer_auth(key("t")).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }
}

/// Returns a client with a timeout, because another process may take the port of a killed process.
fn client_with_timeout() -> Client {
    Client::builder().timeout(Duration::from_secs(20)).build().expect("a client")
}

/// Returns a pseudorandom number that depends only on `n` (the finalizer of SplitMix64).
fn random(n: u64) -> u64 {
    let mut mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

const KILLS: u64 = 10;

/// Concurrent clients; the model admits six. The tenant's limit leaves room for all killed calls.
/// Otherwise every job would wait until their slots are freed, and then until the end of its
/// deferrals.
const CLIENTS: u32 = 16;
const SETTINGS: &str = "[simulator]\ntime_to_first_token_ms = 300\n\
                        [[simulator.pools]]\nmodel_id = \"sim.model\"\nin_flight = 6";
const IN_FLIGHT: u64 = 1_000;

/// Time in which jobs run again after a kill. A message that the killed process had received comes
/// again after a lease (30 s to start, 4 s for the model and 15 s). A message that it had not sent
/// yet is sent by the sweep after two minutes. Then there are the deferrals of jobs that block each
/// other, all on a busy machine.
const RECOVERY_TIME: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn no_accepted_job_is_lost_or_answered_twice_when_the_process_is_killed() {
    let settings = one_tenant(&format!("{{ in_flight = {IN_FLIGHT} }}")).replace("30000", "4000");
    // The collectors poll more often than other clients do.
    let settings = settings.replace("name = \"t\"", "name = \"t\"\nother_requests_per_minute = 1_000_000");
    let installation = Installation::with_config(&format!("{settings}{SETTINGS}"));
    let seed = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    println!("seed {seed}");
    let record = Arc::new(Mutex::new(ClientRecord::default()));
    let caller = |process: &Process| TestClient {
        http: client_with_timeout(),
        url: process.url.clone(),
        record: Arc::clone(&record),
    };
    let mut cut_calls = 0;
    for round in 0..KILLS {
        let process = installation.start().await;
        let caller = caller(&process);
        cut_calls = cut_calls.max(process.in_flight(&caller.http).await);
        let mut tasks = vec![tokio::spawn(caller.clone().collect())];
        tasks.extend((0..CLIENTS).map(|client| tokio::spawn(caller.clone().load(format!("word-{round}-{client}")))));
        // On a busy machine the first calls may be slow.
        assert!(
            happens_within(RECOVERY_TIME, async || process.in_flight(&caller.http).await > 0).await,
            "no call runs"
        );
        let kill_after_ms = 200 + random(seed.wrapping_add(round)) % 1_000;
        tokio::time::sleep(Duration::from_millis(kill_after_ms)).await;
        if round % 2 == 1 {
            // A random moment may find no call in progress in any round.
            let run_again = async || process.in_flight(&caller.http).await > 0;
            assert!(happens_within(RECOVERY_TIME, run_again).await, "no call runs again");
        }
        cut_calls = cut_calls.max(process.in_flight(&caller.http).await);
        process.kill();
        for task in tasks {
            task.await.expect("correct answers until the process ended");
        }
        let record = record.lock().expect("no panic");
        let (accepted, answered) = (record.accepted.len(), record.results.len());
        println!(
            "round {round}: killed after {kill_after_ms} ms; {accepted} jobs accepted, {answered} answered, {cut_calls} calls cut"
        );
    }

    let process = installation.start().await;
    let caller = caller(&process);
    let started = Instant::now();
    let collecting = tokio::spawn(caller.clone().collect());
    let are_all_answered =
        happens_within(RECOVERY_TIME, async || record.lock().expect("no panic").unanswered().is_empty()).await;
    collecting.abort();
    let unanswered = record.lock().expect("no panic").unanswered();
    for id in unanswered {
        println!("job without an answer: {}", process.get(&caller.http, &format!("/v1/jobs/{id}")).await.text());
    }
    assert!(are_all_answered);
    let ids: Vec<String> = record.lock().expect("no panic").accepted.keys().cloned().collect();
    println!("all {} jobs were answered {:?} after the last start", ids.len(), started.elapsed());
    assert!(ids.len() >= 10, "too few jobs for a meaningful test");
    for id in ids {
        caller.check_result(&id).await.expect("the process runs");
    }

    assert!(cut_calls > 0, "no process was killed during a call");
    eventually("the slots of killed calls are freed", async || process.in_flight(&caller.http).await == 0).await;
    assert_eq!(Answer::to(process.chat(&caller.http, &chat(5, 5))).await.status, 200);
    process.kill();
}

#[tokio::test]
async fn ctrl_c_finishes_and_settles_the_requests_in_flight() {
    let settings = one_tenant("{ in_flight = 4 }");
    let installation = Installation::with_config(&format!("{settings}[simulator]\ntokens_per_second = 40"));
    let process = installation.start().await;
    let http = Client::new();
    let mut body = chat(60, 60);
    body["stream"] = json!(true);
    let mut stream = Events::of(process.chat(&http, &body).send().await.expect("a stream"));
    assert!(stream.next().await.is_some(), "the stream begins");
    let unary = tokio::spawn(process.chat(&http, &chat(40, 40)).send());
    eventually("both calls run", async || process.in_flight(&http).await == 2).await;

    process.interrupt();
    let events = stream.rest().await;
    assert_eq!(events.last().map(|(_, data)| data.as_str()), Some("[DONE]"));
    assert_eq!(unary.await.expect("no panic").expect("an answer").status(), 200);
    assert_eq!(process.exit_code().await, Some(0));

    let process = installation.start().await;
    let quota = process.get(&http, "/v1/quota").await.json();
    assert_eq!((&quota["settled"]["output_tokens"], process.in_flight(&http).await), (&json!(100), 0));
}

/// Settings with the tenants `changed`, `deleted` and `kept`, and two models.
const SEEDS: &str = r#"
    [[tenants]]
    name = "changed"
    limits = { requests_per_minute = 60 }
    [[tenants]]
    name = "deleted"
    [[tenants]]
    name = "kept"
    limits = { requests_per_minute = 60 }
    [[models]]
    name = "m"
    [[models.ladder]]
    name = "on-demand"
    kind = "on_demand"
    model_id = "sim.model"
    [[models]]
    name = "gone"
    [[models.ladder]]
    name = "on-demand"
    kind = "on_demand"
    model_id = "sim.gone"
"#;

#[tokio::test]
async fn what_was_changed_at_run_time_survives_a_restart_until_the_file_changes() {
    let keys = ["changed", "deleted", "kept"].map(|tenant| format!("{tenant} = \"{}\"\n", key(tenant))).concat();
    let settings = format!("{SEEDS}[keys]\n{keys}");
    let installation = Installation::with_config(&settings);
    let file = |name: &str| installation.folder.path().join(name).to_str().expect("text").to_owned();
    let limit = |process: &Process, tenant: &str| {
        let shown = process.run(&["quota", tenant]);
        shown.lines().find_map(|line| line.strip_prefix("requests_per_minute")?.split_whitespace().next()?.parse().ok())
    };
    let http = Client::new();

    let process = installation.start().await;
    let raised = "[[tenants]]\nname = \"changed\"\nlimits = { requests_per_minute = 600 }\n\
                  [[tenants]]\nname = \"new\"\n";
    std::fs::write(file("raised.toml"), raised).expect("written");
    process.run(&["tenants", "apply", &file("raised.toml")]);
    process.run(&["tenants", "delete", "deleted"]);
    process.run(&["models", "delete", "gone"]);
    process.run(&["keys", "revoke", &key("kept")]);
    let created = process.run(&["keys", "create", "new"]).trim().to_owned();
    process.stop().await;

    let process = installation.start().await;
    assert_eq!((limit(&process, "changed"), limit(&process, "kept")), (Some(600), Some(60)));
    assert_eq!(process.status_of(&http, &created, "m").await, 200, "a created tenant and key");
    assert_eq!(process.status_of(&http, &key("changed"), "gone").await, 404, "a deleted model");
    assert_eq!(process.status_of(&http, &key("deleted"), "m").await, 401, "a deleted tenant");
    assert_eq!(process.status_of(&http, &key("kept"), "m").await, 401, "a revoked key");
    process.stop().await;

    // The operator edits one entry, and its limit is the one of the file again.
    let lowered = settings.replacen("requests_per_minute = 60 }", "requests_per_minute = 30 }", 1);
    std::fs::write(file("config.toml"), lowered).expect("written");
    let process = installation.start().await;
    assert_eq!((limit(&process, "changed"), limit(&process, "kept")), (Some(30), Some(60)));
    assert_eq!(process.status_of(&http, &key("deleted"), "m").await, 401);
    process.stop().await;
}
