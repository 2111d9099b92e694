//! Child processes: parts of a deployment, their output, and their CPU time and memory.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context, ensure};

/// Length of a tick of `/proc/PID/stat` in microseconds: `USER_HZ` is 100 on all Linux platforms.
pub const TICK_US: u64 = 10_000;

/// Receiver of the output lines of a process.
pub type LineSink = Arc<dyn Fn(&str) + Send + Sync>;

fn forward(output: impl BufRead, sink: &LineSink) {
    output.lines().map_while(Result::ok).for_each(|line| sink(&line));
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

/// A running process. Dropping it kills the process.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts the `spillway` command with `arguments` and only the variables in `environment`.
    /// Waits for an output line that begins with `ready`, and returns the lines up to it.
    ///
    /// # Errors
    /// Returns an error if the process cannot be started or ends before it is ready.
    pub fn start(
        arguments: &[&str],
        environment: &[(String, String)],
        ready: &str,
    ) -> anyhow::Result<(Self, Vec<String>)> {
        Self::spawn(arguments, environment, ready, None)
    }

    /// Like [`Process::start`], and sends all further output lines and all log lines to `sink`.
    ///
    /// # Errors
    /// Returns an error if the process cannot be started or ends before it is ready.
    pub fn start_with_sink(
        arguments: &[&str],
        environment: &[(String, String)],
        ready: &str,
        sink: LineSink,
    ) -> anyhow::Result<(Self, Vec<String>)> {
        Self::spawn(arguments, environment, ready, Some(sink))
    }

    fn spawn(
        arguments: &[&str],
        environment: &[(String, String)],
        ready: &str,
        sink: Option<LineSink>,
    ) -> anyhow::Result<(Self, Vec<String>)> {
        let failed = || format!("spillway {} did not start", arguments.join(" "));
        let mut child = Command::new(spillway()?)
            .args(arguments)
            .env_clear()
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(if sink.is_some() { Stdio::piped() } else { Stdio::inherit() })
            .spawn()
            .with_context(failed)?;
        let log = child.stderr.take();
        let mut output = BufReader::new(child.stdout.take().with_context(failed)?);
        let started = Self { child };
        if let (Some(log), Some(sink)) = (log, sink.clone()) {
            thread::spawn(move || forward(BufReader::new(log), &sink));
        }
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| line.starts_with(ready)) {
            let mut line = String::new();
            ensure!(output.read_line(&mut line).with_context(failed)? > 0, failed());
            lines.push(line.trim_end().to_owned());
        }
        // A full pipe would block the process.
        thread::spawn(move || match sink {
            Some(sink) => forward(output, &sink),
            None => drop(io::copy(&mut output, &mut io::sink())),
        });
        Ok((started, lines))
    }

    /// Kills the process like a crash (SIGKILL).
    ///
    /// # Errors
    /// Returns an error if the system does not allow it.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Returns the CPU time of all its threads so far in microseconds, in whole ticks of
    /// [`TICK_US`].
    ///
    /// # Errors
    /// Returns an error if there is no `/proc`.
    pub fn cpu_us(&self) -> anyhow::Result<u64> {
        let stat = self.proc("stat")?;
        // The second field is a name in parentheses; utime and stime are the 14th and 15th.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(11).take(2));
        let ticks: Vec<u64> = fields.context("no fields")?.map(str::parse).collect::<Result<_, _>>()?;
        Ok(ticks.iter().sum::<u64>() * TICK_US)
    }

    /// Returns its resident memory in KiB.
    ///
    /// # Errors
    /// Returns an error if there is no `/proc`.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}, which exists only on Linux"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
