//! Equal rungs: which of several equal pools a request tries first.

use super::Pool;
use crate::stable_hash::stable_hash;

/// Orders the pools of each rung of `rungs` by weighted rendezvous hashing (Thaler and Ravishankar,
/// "Using name-based mappings to increase hit rates"; weights by the logarithmic method of
/// Schindelhauer and Schomaker, "Weighted distributed hash tables"). Other pools keep their places.
///
/// `key` is the hash of the conversation. The first pool of a rung gets a share of all keys in
/// proportion to its `weight`, and the next is the next by score. If a pool leaves, only its keys
/// move. If the weight of a pool changes, keys move only to this pool or from it. No state is
/// needed, so all processes with the same weights agree. If `is_cheapest_first`, only pools of one
/// price share.
pub fn share_equal_rungs(rungs: &mut [&Pool], key: u64, is_cheapest_first: bool, weight: impl Fn(&Pool) -> f64) {
    let is_equal = |left: &&Pool, right: &&Pool| {
        left.rung.is_some()
            && (left.kind, left.rung) == (right.kind, right.rung)
            && (!is_cheapest_first || (left.prices == right.prices && left.service_tier == right.service_tier))
    };
    for equal in rungs.chunk_by_mut(is_equal).filter(|equal| equal.len() > 1) {
        let mut scored: Vec<(f64, &Pool)> =
            equal.iter().map(|pool| (score(key, &pool.name, weight(pool)), *pool)).collect();
        scored.sort_by(|(left, _), (right, _)| right.total_cmp(left));
        for (place, (_, pool)) in equal.iter_mut().zip(scored) {
            *place = pool;
        }
    }
}

/// Returns the score of a pool for `key`. The highest score wins.
fn score(key: u64, pool: &str, weight: f64) -> f64 {
    /// Number of values of the mantissa of an `f64`.
    const VALUES: f64 = (1_u64 << 53) as f64;
    let hash = stable_hash(key, pool.as_bytes());
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let uniform = ((hash >> 11) as f64 + 0.5) / VALUES;
    -weight / uniform.ln()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn pool(name: &str, rung: Option<u16>, price: f64) -> Pool {
        serde_json::from_value(serde_json::json!({
            "name": name, "kind": "on_demand", "model_id": "m", "rung": rung, "prices": {"input": price},
        }))
        .expect("a pool")
    }

    fn order(pools: &[Pool], key: u64, is_cheapest_first: bool, weights: &BTreeMap<String, f64>) -> Vec<String> {
        let mut rungs: Vec<&Pool> = pools.iter().collect();
        share_equal_rungs(&mut rungs, key, is_cheapest_first, |pool| weights.get(&pool.name).copied().unwrap_or(1.0));
        rungs.into_iter().map(|pool| pool.name.clone()).collect()
    }

    fn equal(count: usize) -> Vec<Pool> {
        (0..count).map(|number| pool(&format!("p{number}"), Some(1), 1.0)).collect()
    }

    /// Keys as they are in use: hashes of texts.
    fn keys(seed: u64) -> impl Iterator<Item = u64> {
        (0..4_000_u64).map(move |number| stable_hash(seed, &number.to_le_bytes()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn shares_follow_the_weights(weights in proptest::collection::vec(0.05_f64..1.0, 2..5), seed: u64) {
            let pools = equal(weights.len());
            let named = pools.iter().map(|pool| pool.name.clone()).zip(weights.iter().copied()).collect();
            let mut first: BTreeMap<String, f64> = BTreeMap::new();
            for key in keys(seed) {
                *first.entry(order(&pools, key, false, &named).swap_remove(0)).or_default() += 1.0 / 4_000.0;
            }
            for (name, weight) in &named {
                let wanted = weight / weights.iter().sum::<f64>();
                let share = first.get(name).copied().unwrap_or_default();
                // Five standard deviations of a share of a half.
                prop_assert!((share - wanted).abs() < 0.04, "{name}: {share} instead of {wanted}");
            }
        }

        #[test]
        fn when_a_pool_leaves_only_its_conversations_move(count in 2_usize..6, leaver in 0_usize..6, seed: u64) {
            let pools = equal(count);
            let mut rest = pools.clone();
            let leaver = rest.remove(leaver % count).name;
            for key in keys(seed).take(200) {
                let mut wanted = order(&pools, key, false, &BTreeMap::new());
                wanted.retain(|name| *name != leaver);
                prop_assert_eq!(order(&rest, key, false, &BTreeMap::new()), wanted);
            }
        }

        #[test]
        fn a_weight_that_falls_moves_conversations_only_away_from_its_pool(
            count in 2_usize..6, weight in 0.01_f64..1.0, seed: u64,
        ) {
            let pools = equal(count);
            let lowered = BTreeMap::from([("p0".to_owned(), weight)]);
            for key in keys(seed).take(200) {
                let before = order(&pools, key, false, &BTreeMap::new()).swap_remove(0);
                let after = order(&pools, key, false, &lowered).swap_remove(0);
                prop_assert!(before == after || before == "p0");
            }
        }

        #[test]
        fn rungs_keep_their_order(rungs in proptest::collection::vec(proptest::option::of(0_u16..3), 1..8), key: u64) {
            let mut ascending = 0;
            let numbers = rungs.iter().map(|rung| rung.map(|step| {
                ascending += step;
                ascending
            }));
            let pools: Vec<Pool> =
                numbers.enumerate().map(|(place, rung)| pool(&place.to_string(), rung, 1.0)).collect();
            let place = |name: &String| name.parse::<usize>().expect("a number");
            let ordered: Vec<usize> = order(&pools, key, false, &BTreeMap::new()).iter().map(place).collect();
            for (at, place) in ordered.iter().enumerate() {
                let between = if at < *place { at..=*place } else { *place..=at };
                prop_assert!(between.clone().all(|other| pools[other].rung == pools[*place].rung));
                prop_assert!(at == *place || pools[*place].rung.is_some());
            }
        }
    }

    #[test]
    fn work_that_can_wait_shares_only_between_pools_of_one_price() {
        let pools = [pool("cheap", Some(1), 1.0), pool("dear", Some(1), 2.0)];
        let both: std::collections::BTreeSet<_> =
            keys(7).map(|key| order(&pools, key, false, &BTreeMap::new()).swap_remove(0)).collect();
        assert_eq!(both.len(), 2);
        assert!(keys(7).all(|key| order(&pools, key, true, &BTreeMap::new()) == ["cheap", "dear"]));
    }
}
