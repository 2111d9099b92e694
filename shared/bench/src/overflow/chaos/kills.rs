//! Brokers that die at random and come back.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::anyhow;
use fastrand::Rng;

use super::Args;
use crate::{
    overflow::{deployment::Deployment, watched::Watched},
    process::Process,
};

/// How far the store's clock is ahead of this machine's, in milliseconds: so a broker with no offset is behind it.
pub const STORE_AHEAD_MS: u64 = 500;

/// How far the brokers' clocks are ahead of this machine's: half a second behind the store's, ahead of it, and right.
const OFFSETS_MS: [u64; 3] = [0, 1_000, STORE_AHEAD_MS];

/// How long a dead broker stays away at most.
const AWAY_MS: u64 = 1_000;

/// Kills brokers until it is told to stop.
pub struct Killer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Killed>>,
}

/// What the killer leaves behind.
pub struct Killed {
    /// When each life ended, by its name, in milliseconds of the stand-ins' clock.
    pub lives: BTreeMap<String, u64>,
    /// The brokers that live; dropped, they are gone.
    _survivors: Vec<Broker>,
}

impl Killer {
    /// Starts the brokers and the killing.
    ///
    /// # Errors
    /// A broker does not start.
    pub fn start(deployment: &Deployment, args: &Args) -> anyhow::Result<Self> {
        let (environment, watched) = (deployment.environment.clone(), deployment.watched.clone());
        let offsets = (0..args.brokers as usize).map(|number| OFFSETS_MS[number % OFFSETS_MS.len()]);
        let brokers = offsets.zip(0..).map(|(offset_ms, life)| Broker::start(life, offset_ms, &environment, &watched));
        let brokers = brokers.collect::<anyhow::Result<Vec<_>>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, rng, every_ms) = (Arc::clone(&stop), Rng::with_seed(args.seed), args.kill_every_ms);
        let thread = thread::spawn(move || kill(brokers, &environment, &watched, &stopped, rng, every_ms));
        Ok(Self { stop, thread })
    }

    /// Stops the killing; who lives goes on.
    ///
    /// # Errors
    /// A broker did not come back.
    pub fn stop(self) -> anyhow::Result<Killed> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the thread that kills brokers died"))?
    }
}

struct Broker {
    /// The name that its calls carry.
    name: String,
    offset_ms: u64,
    process: Process,
}

impl Broker {
    fn start(life: u64, offset_ms: u64, environment: &[(String, String)], watched: &Watched) -> anyhow::Result<Self> {
        let (offset, name) = (offset_ms.to_string(), format!("life-{life}"));
        let named = ("AWS_SDK_UA_APP_ID".to_owned(), name.clone());
        let environment: Vec<_> = environment.iter().cloned().chain([named]).collect();
        let arguments = ["serve", "--port", "0", "--clock-offset-ms", &offset];
        let (process, _) = Process::start_watched(&arguments, &environment, "ready ", watched.watch(Some(&name)))?;
        Ok(Self { name, offset_ms, process })
    }
}

fn kill(
    mut brokers: Vec<Broker>,
    environment: &[(String, String)],
    watched: &Watched,
    stopped: &AtomicBool,
    mut rng: Rng,
    every_ms: u64,
) -> anyhow::Result<Killed> {
    let mut lives = BTreeMap::new();
    let mut life = brokers.len() as u64;
    while !stopped.load(Ordering::Relaxed) {
        // Uniform up to twice the mean, in short naps so that the end is noticed.
        let until = now_ms() + rng.u64(0..=2 * every_ms);
        while now_ms() < until && !stopped.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(20));
        }
        if brokers.is_empty() || stopped.load(Ordering::Relaxed) {
            continue;
        }
        let victim = brokers.swap_remove(rng.usize(0..brokers.len()));
        victim.process.kill()?;
        lives.insert(victim.name, now_ms() + STORE_AHEAD_MS);
        thread::sleep(Duration::from_millis(rng.u64(0..=AWAY_MS)));
        brokers.push(Broker::start(life, victim.offset_ms, environment, watched)?);
        life += 1;
    }
    Ok(Killed { lives, _survivors: brokers })
}

fn now_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
