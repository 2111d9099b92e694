//! The connections of a server: their number, and what each of them does.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// Time for which a connection must have been quiet before it makes room for another. A client that
/// has just connected sends its request in this time.
const MIN_QUIET: Duration = Duration::from_secs(1);

/// Order in which quiet connections make room for others: first connections that never sent a
/// request, and of these the one that has been quiet for longest.
type Rank = (bool, u64);

/// All connections of a server. A connection is quiet while it serves no request.
pub struct Connections {
    vacancies: Arc<Semaphore>,
    quiet: Mutex<Quiet>,
    became_quiet: Notify,
}

#[derive(Default)]
struct Quiet {
    next: u64,
    /// Time since which each connection is quiet, and what closes it.
    by_rank: BTreeMap<Rank, (Instant, CancellationToken)>,
}

impl Quiet {
    /// Takes the connection that must make room. If all have become quiet too recently, returns the
    /// time when one can be taken.
    fn take(&mut self, now: Instant) -> Result<CancellationToken, Option<Instant>> {
        let longest = [false, true].map(|has_served| {
            let mut ranks = self.by_rank.range((has_served, 0)..=(has_served, u64::MAX));
            ranks.next().map(|(rank, (since, _))| (*since + MIN_QUIET, *rank))
        });
        let longest = longest.into_iter().flatten();
        let ripe = longest.clone().find(|(ripe_at, _)| *ripe_at <= now);
        match ripe.and_then(|(_, rank)| self.by_rank.remove(&rank)) {
            Some((_, closed)) => Ok(closed),
            None => Err(longest.map(|(ripe_at, _)| ripe_at).min()),
        }
    }
}

impl Connections {
    /// Returns an empty set for at most `max` connections.
    pub fn new(max: usize) -> Arc<Self> {
        let vacancies = Arc::new(Semaphore::new(max));
        Arc::new(Self { vacancies, quiet: Mutex::default(), became_quiet: Notify::new() })
    }

    /// Returns a place for one connection. If all places are taken, closes a quiet connection, or
    /// waits for one.
    pub async fn place(self: &Arc<Self>) -> Arc<Place> {
        loop {
            if let Ok(vacancy) = Arc::clone(&self.vacancies).try_acquire_owned() {
                return Place::new(Arc::clone(self), vacancy);
            }
            let taken = self.quiet().take(Instant::now());
            let next_attempt = async {
                match taken {
                    Ok(closed) => {
                        closed.cancel();
                        pending().await
                    }
                    Err(Some(ripe_at)) => sleep_until(ripe_at).await,
                    Err(None) => self.became_quiet.notified().await,
                }
            };
            tokio::select! {
                vacancy = Arc::clone(&self.vacancies).acquire_owned() => {
                    if let Ok(vacancy) = vacancy {
                        return Place::new(Arc::clone(self), vacancy);
                    }
                }
                () = next_attempt => {}
            }
        }
    }

    fn quiet(&self) -> MutexGuard<'_, Quiet> {
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection that has become quiet. Returns its rank.
    fn add(&self, has_served: bool, closed: &CancellationToken) -> Rank {
        let mut quiet = self.quiet();
        quiet.next += 1;
        let rank = (has_served, quiet.next);
        quiet.by_rank.insert(rank, (Instant::now(), closed.clone()));
        self.became_quiet.notify_one();
        rank
    }

    fn remove(&self, rank: Rank) {
        self.quiet().by_rank.remove(&rank);
    }
}

/// What a connection does.
#[derive(Debug)]
struct Activity {
    /// Number of requests and blocked writes.
    running: usize,
    has_served: bool,
    /// Rank while nothing is running.
    rank: Rank,
}

/// The place of one connection.
pub struct Place {
    all: Arc<Connections>,
    activity: watch::Sender<Activity>,
    closed: CancellationToken,
    _vacancy: OwnedSemaphorePermit,
}

impl Place {
    fn new(all: Arc<Connections>, vacancy: OwnedSemaphorePermit) -> Arc<Self> {
        let closed = CancellationToken::new();
        let rank = all.add(false, &closed);
        let activity = watch::Sender::new(Activity { running: 0, has_served: false, rank });
        Arc::new(Self { all, activity, closed, _vacancy: vacancy })
    }

    /// Notes that a request has arrived.
    pub fn request(self: &Arc<Self>) -> Work {
        self.begin(true)
    }

    /// Notes that a write waits for the client.
    pub fn write(self: &Arc<Self>) -> Work {
        self.begin(false)
    }

    fn begin(self: &Arc<Self>, is_request: bool) -> Work {
        self.activity.send_modify(|activity| {
            if activity.running == 0 {
                self.all.remove(activity.rank);
            }
            activity.running += 1;
            activity.has_served |= is_request;
        });
        Work(Arc::clone(self))
    }

    fn end(&self) {
        self.activity.send_modify(|activity| {
            activity.running -= 1;
            if activity.running == 0 {
                activity.rank = self.all.add(activity.has_served, &self.closed);
            }
        });
    }

    /// Returns when the connection must make room for another.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Returns when the connection is quiet at the time that `deadline` gives. It is asked each
    /// time that the connection becomes quiet, with whether the connection has served a request.
    pub async fn quiet_until(&self, deadline: impl Fn(bool) -> Instant) {
        let mut changes = self.activity.subscribe();
        loop {
            let quiet_since = {
                let activity = changes.borrow_and_update();
                (activity.running == 0).then_some(activity.has_served)
            };
            match quiet_since {
                None => {
                    let _ = changes.changed().await;
                }
                Some(has_served) if timeout_at(deadline(has_served), changes.changed()).await.is_err() => return,
                Some(_) => {}
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let activity = self.activity.borrow();
        if activity.running == 0 {
            self.all.remove(activity.rank);
        }
    }
}

/// A request or a blocked write, until it is dropped.
pub struct Work(Arc<Place>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_full_server_closes_the_connection_that_has_been_quiet_for_longest() {
        let connections = Connections::new(4);
        let [busy, served] = [connections.place().await, connections.place().await];
        let _running = busy.request();
        drop(served.request());
        let [first, second] = [connections.place().await, connections.place().await];
        let mut later = Vec::new();
        for quietest in [first, second, served] {
            let all = Arc::clone(&connections);
            let start = Instant::now();
            let next = tokio::spawn(async move { all.place().await });
            quietest.closed().await;
            assert!(start.elapsed() <= MIN_QUIET);
            drop(quietest);
            let next = next.await.expect("a place");
            later.push(next.request());
        }
        assert!(!busy.closed.is_cancelled());
        assert!(later.iter().all(|work| !work.0.closed.is_cancelled()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_just_opened_makes_no_room() {
        let connections = Connections::new(1);
        let new = connections.place().await;
        let start = Instant::now();
        let all = Arc::clone(&connections);
        let next = tokio::spawn(async move { all.place().await });
        new.closed().await;
        assert_eq!(start.elapsed(), MIN_QUIET);
        drop(new);
        next.await.expect("a place");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_becomes_quiet_makes_room_for_one_that_waits() {
        let connections = Connections::new(1);
        let busy = connections.place().await;
        let work = busy.request();
        let waits = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move { connections.place().await }
        });
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(!waits.is_finished() && !busy.closed.is_cancelled());
        drop(work);
        busy.closed().await;
        drop(busy);
        waits.await.expect("a place");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_begins_and_ends_at_once_starts_the_quiet_time_again() {
        let connections = Connections::new(1);
        let place = connections.place().await;
        let start = Instant::now();
        let quiet = place.quiet_until(|_| Instant::now() + Duration::from_secs(10));
        let requests = async {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(6)).await;
                drop(place.request());
            }
            std::future::pending().await
        };
        tokio::select! {
            () = quiet => {}
            () = requests => {}
        }
        assert_eq!(start.elapsed(), Duration::from_secs(40));
    }
}
