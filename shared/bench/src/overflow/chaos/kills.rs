//! Brokers that are killed at random and restarted.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::anyhow;
use fastrand::Rng;
use spillway::{clock::Clock, units::Millis};

use super::Args;
use crate::{
    overflow::{deployment::Deployment, output::OutputLog},
    process::Process,
};

/// Milliseconds by which the store's clock is ahead of this machine's clock. A broker without an
/// offset is behind the store.
pub const STORE_AHEAD_MS: u64 = 500;

/// Milliseconds by which the brokers' clocks are ahead of this machine's clock: half a second
/// behind the store, half a second ahead of it, and equal.
const OFFSETS_MS: [u64; 3] = [0, 1_000, STORE_AHEAD_MS];

/// Maximum downtime of a killed broker.
const MAX_DOWNTIME_MS: u64 = 1_000;

/// Kills brokers until it is stopped.
pub struct Killer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Killed>>,
}

/// Result of the killer.
pub struct Killed {
    /// Times of the kills by the name of the broker process, in milliseconds of the stand-ins'
    /// clock.
    pub killed_at_ms: BTreeMap<String, u64>,
    /// Brokers that still run. Dropping them stops them.
    _survivors: Vec<Broker>,
}

impl Killer {
    /// Starts the brokers and the thread that kills them.
    ///
    /// # Errors
    /// Returns an error if a broker does not start.
    pub fn start(deployment: &Deployment, args: &Args) -> anyhow::Result<Self> {
        let (environment, output) = (deployment.environment.clone(), deployment.output.clone());
        let offsets = (0..args.brokers as usize).map(|number| OFFSETS_MS[number % OFFSETS_MS.len()]);
        let brokers =
            offsets.zip(0..).map(|(offset_ms, number)| Broker::start(number, offset_ms, &environment, &output));
        let brokers = brokers.collect::<anyhow::Result<Vec<_>>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, rng, every_ms) = (Arc::clone(&stop), Rng::with_seed(args.seed), args.kill_every_ms);
        let thread = thread::spawn(move || kill(brokers, &environment, &output, &stopped, rng, every_ms));
        Ok(Self { stop, thread })
    }

    /// Stops the killing. The running brokers continue.
    ///
    /// # Errors
    /// Returns an error if a broker did not restart.
    pub fn stop(self) -> anyhow::Result<Killed> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the thread that kills brokers panicked"))?
    }
}

struct Broker {
    /// Name that its calls carry.
    name: String,
    offset_ms: u64,
    process: Process,
}

impl Broker {
    fn start(
        number: u64,
        offset_ms: u64,
        environment: &[(String, String)],
        output: &OutputLog,
    ) -> anyhow::Result<Self> {
        let (offset, name) = (offset_ms.to_string(), format!("process-{number}"));
        let named = ("AWS_SDK_UA_APP_ID".to_owned(), name.clone());
        let environment: Vec<_> = environment.iter().cloned().chain([named]).collect();
        let arguments = ["serve", "--port", "0", "--clock-offset-ms", &offset];
        let (process, _) = Process::start_with_sink(&arguments, &environment, "ready ", output.sink(Some(&name)))?;
        Ok(Self { name, offset_ms, process })
    }
}

fn kill(
    mut brokers: Vec<Broker>,
    environment: &[(String, String)],
    output: &OutputLog,
    stopped: &AtomicBool,
    mut rng: Rng,
    every_ms: u64,
) -> anyhow::Result<Killed> {
    let clock = Clock::default();
    let mut killed_at_ms = BTreeMap::new();
    let mut number = brokers.len() as u64;
    while !stopped.load(Ordering::Relaxed) {
        // The wait is uniform up to twice the mean. It has short steps so that the thread notices
        // the end.
        let until = clock.now() + Millis::from_ms(rng.u64(0..=2 * every_ms));
        while clock.now() < until && !stopped.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(20));
        }
        if brokers.is_empty() || stopped.load(Ordering::Relaxed) {
            continue;
        }
        let victim = brokers.swap_remove(rng.usize(0..brokers.len()));
        victim.process.kill()?;
        killed_at_ms.insert(victim.name, clock.now().as_ms() + STORE_AHEAD_MS);
        thread::sleep(Duration::from_millis(rng.u64(0..=MAX_DOWNTIME_MS)));
        brokers.push(Broker::start(number, victim.offset_ms, environment, output)?);
        number += 1;
    }
    Ok(Killed { killed_at_ms, _survivors: brokers })
}
