//! Comparison of direct and brokered calls. Each round has a block of direct calls and a block of
//! brokered calls, so that noise affects both equally.

use std::time::Duration;

use super::{
    block::{self, Block},
    call::Case,
    deployment::{Deployment, RoundTrips},
};

/// Figures of a case, by round.
pub struct Comparison {
    pub case: Case,
    direct: Vec<Block>,
    brokered: Vec<Block>,
    round_trips: RoundTrips,
}

/// Number of rounds of each case.
pub const ROUNDS: usize = 5;

impl Comparison {
    /// Measures `case` in blocks of length `duration`, after a warm-up.
    ///
    /// # Errors
    /// Returns an error if a call fails.
    pub async fn measure(
        client: &reqwest::Client,
        deployment: &Deployment,
        case: Case,
        duration: Duration,
    ) -> anyhow::Result<Self> {
        let (direct, brokered) = (case.direct(deployment), case.brokered(deployment));
        let mut comparison =
            Self { case, direct: Vec::new(), brokered: Vec::new(), round_trips: RoundTrips::default() };
        block::run(client, &direct, &deployment.stand_ins, duration / 4).await?;
        block::run(client, &brokered, &deployment.broker, duration / 4).await?;
        for _ in 0..ROUNDS {
            comparison.direct.push(block::run(client, &direct, &deployment.stand_ins, duration).await?);
            let before = deployment.round_trips(client).await?;
            comparison.brokered.push(block::run(client, &brokered, &deployment.broker, duration).await?);
            let added = deployment.round_trips(client).await?.since(before);
            comparison.round_trips = comparison.round_trips.plus(added);
        }
        Ok(comparison)
    }

    /// Number of requests through the broker.
    pub fn requests(&self) -> u64 {
        requests(&self.brokered)
    }

    /// CPU time of the broker per request, in microseconds.
    pub fn broker_cpu_us(&self) -> f64 {
        cpu_us(&self.brokered)
    }

    /// CPU time of the simulator per direct call, in microseconds.
    pub fn simulator_cpu_us(&self) -> f64 {
        cpu_us(&self.direct)
    }

    /// Returns a figure of the direct calls, and its increase through the broker. Both are medians
    /// over the rounds.
    pub fn direct_and_added(&self, figure: impl Fn(&Block) -> f64) -> (f64, f64) {
        let direct = median(self.direct.iter().map(&figure));
        let added =
            median(self.direct.iter().zip(&self.brokered).map(|(direct, brokered)| figure(brokered) - figure(direct)));
        (direct, added)
    }

    /// Writes to DynamoDB and model calls per request to the broker.
    pub fn round_trips(&self) -> f64 {
        (self.round_trips.writes + self.round_trips.model_calls) as f64 / self.requests() as f64
    }

    /// Total reads of DynamoDB.
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
    fn the_added_figure_is_the_median_of_the_differences_of_the_rounds() {
        let case = Case::every()[0];
        let direct = vec![block(10, 10_000, 100.0), block(30, 30_000, 900.0), block(10, 10_000, 110.0)];
        let brokered = vec![block(5, 10_000, 300.0), block(5, 20_000, 1_120.0), block(10, 10_000, 320.0)];
        let comparison =
            Comparison { case, direct, brokered, round_trips: RoundTrips { reads: 3, writes: 80, model_calls: 20 } };
        assert_eq!(comparison.direct_and_added(|block| block.p50_us), (110.0, 210.0));
        assert_eq!((comparison.broker_cpu_us(), comparison.simulator_cpu_us()), (2_000.0, 1_000.0));
        assert_eq!((comparison.requests(), comparison.round_trips(), comparison.reads()), (20, 5.0, 3));
    }
}
