//! Programs in separate processes, and a broker in one, whose memory a test measures.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use reqwest::{Client, RequestBuilder};
use spillway::{app::App, config::Config, telemetry::Telemetry};
use spillway_command::{settings::Settings, world};
use spillway_stand_ins::StandIns;

use super::{answer::within, key, time::eventually};

/// Starts `command` and waits until it reports that it is ready. Returns the process and its URL.
pub async fn until_ready(command: Command) -> (Child, String) {
    let (child, url, _) = until_ready_with_variables(command).await;
    (child, url)
}

/// The same, with the variables that the process prints for a shell.
pub async fn until_ready_with_variables(mut command: Command) -> (Child, String, Vec<(String, String)>) {
    let started = tokio::task::spawn_blocking(move || {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let mut variables = Vec::new();
        let ready = lines.find_map(|line| {
            let line = line.expect("text");
            let variable = line.strip_prefix("export ").and_then(|variable| variable.split_once('='));
            variables.extend(variable.map(|(name, value)| (name.to_owned(), value.to_owned())));
            line.strip_prefix("ready ").map(str::to_owned)
        });
        // The events of the requests follow.
        std::thread::spawn(move || lines.for_each(drop));
        (child, ready.expect("a line that says ready"), variables)
    });
    within(started).await.expect("started")
}

/// A running `spillway serve` and its services, which are in this process.
pub struct ServeProcess {
    child: Child,
    pub url: String,
    pub http: Client,
    /// The parts of a broker in this process, on the same services.
    pub app: App,
    _stand_ins: StandIns,
}

impl ServeProcess {
    /// Starts the services with `settings`, and then the broker with these arguments. `prepare`
    /// runs in between.
    pub async fn start(settings: &str, arguments: &[&str], prepare: impl AsyncFnOnce(&App)) -> Self {
        let settings: Settings = toml::from_str(settings).expect("settings");
        let options = spillway_stand_ins::Options { simulator: settings.simulator.clone(), ..Default::default() };
        let stand_ins = StandIns::start(options).await.expect("the services");
        let (config, clients, _) = world::provision(&stand_ins).await.expect("tables, queues and a bucket");
        let app = App::new(&config, clients, Telemetry::off());
        world::seed(&app, &settings).await.expect("a registry");
        prepare(&app).await;
        let mut command = Command::new(env!("CARGO_BIN_EXE_spillway"));
        command.args(["serve", "--port", "0"]).args(arguments).envs(variables(&config)).envs(stand_ins.endpoints());
        let (child, url) = until_ready(command).await;
        Self { child, url, http: Client::new(), app, _stand_ins: stand_ins }
    }

    /// Asks the process to stop (SIGTERM), and waits for its end. Returns whether it ended well.
    pub async fn stop(&mut self) -> bool {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill").success());
        let mut status = None;
        eventually("the process ends", async || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        })
        .await;
        status.is_some_and(|status| status.success())
    }

    /// Builds a POST request with the key of `t`.
    pub fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.url)).bearer_auth(key("t")).body(body)
    }

    /// Returns the memory of the process, in MB.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// Returns the most memory of the process since the last [`reset_peak`](Self::reset_peak), in
    /// MB.
    pub fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// Forgets the most memory of the process so far.
    pub fn reset_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("the process");
    }

    fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024 / 1_000_000
    }
}

impl Drop for ServeProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The variables of a process that uses the services of `config`.
fn variables(config: &Config) -> Vec<(&'static str, String)> {
    let resources = [
        ("SPILLWAY_QUEUE_URL", &config.queue_url),
        ("SPILLWAY_DEAD_LETTER_QUEUE_URL", &config.dead_letter_queue_url),
        ("SPILLWAY_BUCKET", &config.bucket),
    ];
    let resources = resources.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
    let aws = [("AWS_REGION", "us-east-1"), ("AWS_ACCESS_KEY_ID", "t"), ("AWS_SECRET_ACCESS_KEY", "t")];
    resources.chain(aws.map(|(name, value)| (name, value.to_owned()))).collect()
}
