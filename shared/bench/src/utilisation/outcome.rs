//! Outcome of a replay, and its table.

/// Fate of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The pool served it.
    Served,
    /// It was not sent to the pool.
    Spilled,
    /// It was sent to the pool, and the pool had no room.
    Throttled,
}

/// Outcome of a replay.
#[derive(Debug, Clone)]
pub struct Outcome {
    name: &'static str,
    limit: u64,
    length_ms: u64,
    /// Tokens of all requests and of the served requests.
    tokens: Part,
    /// Tokens of the requests above a sixth of the limit, as far as they fit the limit.
    large: Part,
    calls: u64,
    throttled: u64,
    /// Tokens of each minute.
    minutes: Vec<Part>,
}

/// Tokens of requests.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    all: u64,
    served: u64,
}

impl Part {
    fn add(&mut self, tokens: u64, is_served: bool) {
        self.all += tokens;
        self.served += if is_served { tokens } else { 0 };
    }

    fn plus(self, part: Self) -> Self {
        Self { all: self.all + part.all, served: self.served + part.served }
    }

    fn share(self) -> f64 {
        self.served as f64 / self.all.max(1) as f64
    }
}

impl Outcome {
    /// Creates the outcome of a replay of `length_ms` on a pool with `limit` tokens per minute.
    pub fn new(name: &'static str, limit: u64, length_ms: u64) -> Self {
        let (tokens, large) = (Part::default(), Part::default());
        Self { name, limit, length_ms, tokens, large, calls: 0, throttled: 0, minutes: Vec::new() }
    }

    /// Adds a request that ended at `at_ms`.
    pub fn add(&mut self, tokens: u64, fate: Fate, at_ms: u64) {
        let is_served = fate == Fate::Served;
        self.tokens.add(tokens, is_served);
        if 6 * tokens > self.limit && tokens <= self.limit {
            self.large.add(tokens, is_served);
        }
        self.calls += u64::from(fate != Fate::Spilled);
        self.throttled += u64::from(fate == Fate::Throttled);
        let minute = (at_ms / 60_000) as usize;
        if self.minutes.len() <= minute {
            self.minutes.resize(minute + 1, Part::default());
        }
        self.minutes[minute].add(tokens, is_served);
    }

    /// Returns the sum of several outcomes, whose figures are the means.
    pub fn mean(outcomes: &[Self]) -> Self {
        let sum = |sum: Self, next: &Self| Self {
            length_ms: sum.length_ms + next.length_ms,
            tokens: sum.tokens.plus(next.tokens),
            large: sum.large.plus(next.large),
            calls: sum.calls + next.calls,
            throttled: sum.throttled + next.throttled,
            minutes: [sum.minutes, next.minutes.clone()].concat(),
            ..sum
        };
        let Some((first, rest)) = outcomes.split_first() else { panic!("an outcome") };
        rest.iter().fold(first.clone(), sum)
    }

    /// Share of all tokens that the pool served.
    pub fn served_share(&self) -> f64 {
        self.tokens.share()
    }

    /// Share of the tokens of large requests that the pool served, as a share of the same figure
    /// for all requests; 1 if there are none.
    pub fn large_of_share(&self) -> f64 {
        if self.large.all == 0 { 1.0 } else { self.large.share() / self.served_share() }
    }

    /// Served tokens as a share of what the pool can serve in the whole time.
    fn utilisation(&self) -> f64 {
        self.tokens.served as f64 * 60_000.0 / (self.limit as f64 * self.length_ms as f64)
    }

    /// Served tokens as a share of what the pool can serve, in the minutes in which a request was
    /// not served.
    pub fn spilling_utilisation(&self) -> f64 {
        let spilling = self.minutes.iter().filter(|minute| minute.served < minute.all);
        let (served, minutes) =
            spilling.fold((0, 0), |(served, minutes), minute| (served + minute.served, minutes + 1));
        served as f64 / (self.limit * minutes).max(1) as f64
    }

    fn throttled_share(&self) -> f64 {
        self.throttled as f64 / self.calls.max(1) as f64
    }
}

const NAME_WIDTH: usize = 58;
const COLUMN_WIDTH: usize = 14;

/// A row of the table: its name and its figure.
type Row = (&'static str, fn(&Outcome) -> f64);

const ROWS: [Row; 6] = [
    ("tokens that the pool serves", Outcome::served_share),
    ("  of the tokens in large requests", |outcome| outcome.large.share()),
    ("  large requests / all requests", Outcome::large_of_share),
    ("utilisation of the pool", Outcome::utilisation),
    ("  in minutes in which requests are not served", Outcome::spilling_utilisation),
    ("calls that the pool throttles / calls", Outcome::throttled_share),
];

/// Prints a table with a column for each outcome.
pub fn print(title: &str, outcomes: &[Outcome]) {
    println!("{title}\n");
    print!("{:<NAME_WIDTH$}", "");
    outcomes.iter().for_each(|outcome| print!("{:>COLUMN_WIDTH$}", outcome.name));
    println!();
    for (name, figure) in ROWS {
        print!("{name:<NAME_WIDTH$}");
        outcomes.iter().for_each(|outcome| print!("{:>COLUMN_WIDTH$.4}", figure(outcome)));
        println!();
    }
    println!();
}
