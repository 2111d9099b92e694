//! A part of the deployment as a process of its own, and what the system says of it.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context, ensure};

/// What a tick of `/proc/PID/stat` is, in microseconds: `USER_HZ` is 100 wherever Linux runs.
pub const TICK_US: u64 = 10_000;

/// What gets the lines of a process.
pub type Watch = Arc<dyn Fn(&str) + Send + Sync>;

fn pass_on(output: impl BufRead, watch: &Watch) {
    output.lines().map_while(Result::ok).for_each(|line| watch(&line));
}

/// Path of the `spillway` command, which is built into the same directory as this one.
///
/// # Errors
/// Returns an error if the file is missing.
fn spillway() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("spillway");
    ensure!(
        path.is_file(),
        "{} does not exist; build both commands with `cargo build --workspace --bins`, and with the same --profile",
        path.display()
    );
    Ok(path)
}

/// A running process; dropped, it is gone.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts the `spillway` command with `arguments` and only the variables in `environment`.
    /// Waits for an output line that begins with `ready`, and returns the lines up to it.
    ///
    /// # Errors
    /// It cannot be started, or ends before it is ready.
    pub fn start(
        arguments: &[&str],
        environment: &[(String, String)],
        ready: &str,
    ) -> anyhow::Result<(Self, Vec<String>)> {
        Self::spawn(arguments, environment, ready, None)
    }

    /// The same, and `watch` gets every line that it prints after that one, and every line of its log.
    ///
    /// # Errors
    /// It cannot be started, or ends before it is ready.
    pub fn start_watched(
        arguments: &[&str],
        environment: &[(String, String)],
        ready: &str,
        watch: Watch,
    ) -> anyhow::Result<(Self, Vec<String>)> {
        Self::spawn(arguments, environment, ready, Some(watch))
    }

    fn spawn(
        arguments: &[&str],
        environment: &[(String, String)],
        ready: &str,
        watch: Option<Watch>,
    ) -> anyhow::Result<(Self, Vec<String>)> {
        let named = || format!("spillway {} did not start", arguments.join(" "));
        let mut child = Command::new(spillway()?)
            .args(arguments)
            .env_clear()
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(if watch.is_some() { Stdio::piped() } else { Stdio::inherit() })
            .spawn()
            .with_context(named)?;
        let log = child.stderr.take();
        let mut output = BufReader::new(child.stdout.take().with_context(named)?);
        let started = Self { child };
        if let (Some(log), Some(watch)) = (log, watch.clone()) {
            thread::spawn(move || pass_on(BufReader::new(log), &watch));
        }
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| line.starts_with(ready)) {
            let mut line = String::new();
            ensure!(output.read_line(&mut line).with_context(named)? > 0, named());
            lines.push(line.trim_end().to_owned());
        }
        // A full pipe would stop it.
        thread::spawn(move || match watch {
            Some(watch) => pass_on(output, &watch),
            None => drop(io::copy(&mut output, &mut io::sink())),
        });
        Ok((started, lines))
    }

    /// Ends it as a crash would: at once and without a word (SIGKILL).
    ///
    /// # Errors
    /// The system does not let us.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The CPU time of all its threads so far, in microseconds: whole ticks of [`TICK_US`].
    ///
    /// # Errors
    /// There is no `/proc`.
    pub fn cpu_us(&self) -> anyhow::Result<u64> {
        let stat = self.proc("stat")?;
        // The second field is a name in parentheses; utime and stime are the 14th and 15th.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(11).take(2));
        let ticks: Vec<u64> = fields.context("no fields")?.map(str::parse).collect::<Result<_, _>>()?;
        Ok(ticks.iter().sum::<u64>() * TICK_US)
    }

    /// Its resident memory in KiB.
    ///
    /// # Errors
    /// There is no `/proc`.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}, which only Linux has"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
