//! One case, measured in rounds: a block of direct calls, then one of brokered calls, so that noise hits both alike.

use std::time::Duration;

use super::{
    block::{self, Block},
    call::Case,
    deployment::{Deployment, RoundTrips},
};

/// What a case took, by round.
pub struct Cell {
    pub case: Case,
    direct: Vec<Block>,
    brokered: Vec<Block>,
    round_trips: RoundTrips,
}

/// How many rounds each case has.
pub const ROUNDS: usize = 5;

impl Cell {
    /// Measures `case` in blocks that last `lasting` each, after one block that warms both up.
    ///
    /// # Errors
    /// A call fails.
    pub async fn measure(
        client: &reqwest::Client,
        deployment: &Deployment,
        case: Case,
        lasting: Duration,
    ) -> anyhow::Result<Self> {
        let (direct, brokered) = (case.direct(deployment), case.brokered(deployment));
        let mut cell = Self { case, direct: Vec::new(), brokered: Vec::new(), round_trips: RoundTrips::default() };
        block::run(client, &direct, &deployment.stand_ins, lasting / 4).await?;
        block::run(client, &brokered, &deployment.broker, lasting / 4).await?;
        for _ in 0..ROUNDS {
            cell.direct.push(block::run(client, &direct, &deployment.stand_ins, lasting).await?);
            let before = deployment.round_trips(client).await?;
            cell.brokered.push(block::run(client, &brokered, &deployment.broker, lasting).await?);
            let asked = deployment.round_trips(client).await?.since(before);
            cell.round_trips = cell.round_trips.plus(asked);
        }
        Ok(cell)
    }

    /// How many requests went through the broker.
    pub fn requests(&self) -> u64 {
        requests(&self.brokered)
    }

    /// The broker's CPU time for one request, in microseconds.
    pub fn broker_cpu_us(&self) -> f64 {
        cpu_us(&self.brokered)
    }

    /// The simulator's CPU time for one direct call, in microseconds.
    pub fn simulator_cpu_us(&self) -> f64 {
        cpu_us(&self.direct)
    }

    /// A figure of the direct calls, and how much more it is through the broker: medians over the rounds.
    pub fn direct_and_added(&self, figure: impl Fn(&Block) -> f64) -> (f64, f64) {
        let direct = median(self.direct.iter().map(&figure));
        let added = median(self.direct.iter().zip(&self.brokered).map(|(one, other)| figure(other) - figure(one)));
        (direct, added)
    }

    /// The writes to DynamoDB and the calls of a model for one request to the broker.
    pub fn round_trips(&self) -> f64 {
        (self.round_trips.writes + self.round_trips.model_calls) as f64 / self.requests() as f64
    }

    /// The reads of DynamoDB, in all.
    pub fn reads(&self) -> u64 {
        self.round_trips.reads
    }
}

fn requests(blocks: &[Block]) -> u64 {
    blocks.iter().map(|block| block.requests).sum()
}

fn cpu_us(blocks: &[Block]) -> f64 {
    blocks.iter().map(|block| block.cpu_us).sum::<u64>() as f64 / requests(blocks) as f64
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(requests: u64, cpu_us: u64, p50_us: f64) -> Block {
        Block { requests, cpu_us, p50_us, p99_us: 0.0, first_byte_p50_us: 0.0 }
    }

    #[test]
    fn what_is_added_is_the_median_of_the_rounds_differences() {
        let case = Case::all()[0];
        let direct = vec![block(10, 10_000, 100.0), block(30, 30_000, 900.0), block(10, 10_000, 110.0)];
        let brokered = vec![block(5, 10_000, 300.0), block(5, 20_000, 1_120.0), block(10, 10_000, 320.0)];
        let cell = Cell { case, direct, brokered, round_trips: RoundTrips { reads: 3, writes: 80, model_calls: 20 } };
        assert_eq!(cell.direct_and_added(|block| block.p50_us), (110.0, 210.0));
        assert_eq!((cell.broker_cpu_us(), cell.simulator_cpu_us()), (2_000.0, 1_000.0));
        assert_eq!((cell.requests(), cell.round_trips(), cell.reads()), (20, 5.0, 3));
    }
}
