//! Shares of tenants in the memory for answers. Pure.
//!
//! A tenant must not fill the memory that the answers of other tenants need. Two rules ensure it:
//!
//! - Running calls and their bytes cannot be taken back. So a tenant gets more only while it holds
//!   at most twice what is free ([`has_room`]). A tenant alone gets two thirds, and the next tenant
//!   still finds room (Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory
//!   Packet Switches", 1998).
//! - Ended answers can be taken back. They are taken from the tenant that holds the most
//!   ([`displaced`]), so a tenant within an equal share loses none.

use std::{
    collections::{BinaryHeap, HashMap, VecDeque},
    hash::Hash,
};

/// How many times the free part a tenant may hold.
const MAX_TIMES_FREE: usize = 2;

/// Whether a tenant that holds `held` of the `total` in use may get `more`. `max` is the maximum of
/// all tenants.
pub fn has_room(held: usize, total: usize, more: usize, max: usize) -> bool {
    let free = max.saturating_sub(total.saturating_add(more));
    held.saturating_add(more) <= free.saturating_mul(MAX_TIMES_FREE)
}

/// Returns the indices of the answers to displace, so that the others have at most `max`. An answer
/// has a tenant and a size; the oldest come first.
///
/// The tenant that holds the most loses its oldest answer first. A tenant that holds at most `max`,
/// divided by the number of tenants, loses none.
pub fn displaced<T: Copy + Eq + Hash + Ord>(answers: &[(T, usize)], max: usize) -> Vec<usize> {
    let mut total: usize = answers.iter().map(|(_, size)| size).sum();
    let mut tenants: HashMap<T, (usize, VecDeque<usize>)> = HashMap::new();
    for (index, (tenant, size)) in answers.iter().enumerate() {
        let (held, indices) = tenants.entry(*tenant).or_default();
        *held += size;
        indices.push_back(index);
    }
    let mut heap: BinaryHeap<(usize, T)> = tenants.iter().map(|(tenant, (held, _))| (*held, *tenant)).collect();
    let mut displaced = Vec::new();
    while total > max
        && let Some((held, tenant)) = heap.pop()
        && let Some(index) = tenants.get_mut(&tenant).and_then(|(_, indices)| indices.pop_front())
    {
        let size = answers[index].1;
        displaced.push(index);
        total -= size;
        heap.push((held - size, tenant));
    }
    displaced
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 1_000;

    fn held_by(tenant: u8, answers: &[(u8, usize)]) -> usize {
        answers.iter().filter(|(holder, _)| *holder == tenant).map(|(_, size)| size).sum()
    }

    proptest! {
        /// Whatever the others hold, a tenant within an equal share keeps all its answers, and
        /// every tenant loses its oldest answers first.
        #[test]
        fn a_tenant_within_an_equal_share_loses_no_answer(
            answers in prop::collection::vec((0_u8..5, 0_usize..60), 0..60),
            max in 0_usize..MAX,
        ) {
            let lost = displaced(&answers, max);
            let is_lost = |index: usize| lost.contains(&index);
            let kept: Vec<(u8, usize)> =
                (0..answers.len()).filter(|index| !is_lost(*index)).map(|index| answers[index]).collect();
            prop_assert!(kept.iter().map(|(_, size)| size).sum::<usize>() <= max);
            let tenants: Vec<u8> = (0..5).filter(|tenant| answers.iter().any(|(holder, _)| holder == tenant)).collect();
            for tenant in &tenants {
                let own: Vec<bool> =
                    (0..answers.len()).filter(|index| answers[*index].0 == *tenant).map(is_lost).collect();
                prop_assert!(own.is_sorted_by(|a, b| a >= b), "the oldest go first: {own:?}");
                if held_by(*tenant, &answers) * tenants.len() <= max {
                    prop_assert!(!own.contains(&true), "tenant {tenant} lost an answer");
                }
            }
        }

        /// However tenants ask: all together never get more than the maximum, one tenant never gets
        /// more than two thirds, and a further tenant finds a third of what would then be free.
        #[test]
        fn room_is_left_for_a_further_tenant(requests in prop::collection::vec((0_u8..3, 1_usize..40), 0..300)) {
            let mut granted: Vec<(u8, usize)> = Vec::new();
            for (tenant, more) in requests {
                let total = granted.iter().map(|(_, size)| size).sum();
                if has_room(held_by(tenant, &granted), total, more, MAX) {
                    granted.push((tenant, more));
                }
            }
            let total: usize = granted.iter().map(|(_, size)| size).sum();
            prop_assert!((0..3).all(|tenant| held_by(tenant, &granted) * 3 <= MAX * 2));
            // Each of three tenants leaves at least a third of what it finds.
            prop_assert!(MAX - total >= MAX / 27, "{total} are held");
            prop_assert!(has_room(0, total, (MAX - total) / 3, MAX));
        }
    }

    #[test]
    fn the_tenant_that_holds_the_most_loses_its_oldest_answers() {
        let answers = [("small", 10), ("large", 40), ("large", 40), ("small", 10), ("large", 40)];
        assert_eq!(displaced(&answers, 140), Vec::<usize>::new());
        assert_eq!(displaced(&answers, 100), [1]);
        assert_eq!(displaced(&answers, 60), [1, 2]);
        assert_eq!(displaced(&answers, 0).len(), 5);
    }

    #[test]
    fn a_tenant_alone_gets_two_thirds() {
        assert!(has_room(0, 0, 666, MAX) && !has_room(0, 0, 667, MAX));
        assert!(has_room(665, 665, 1, MAX) && !has_room(666, 666, 1, MAX));
        assert!(has_room(0, 666, 222, MAX) && !has_room(0, 666, 223, MAX));
        assert!(!has_room(usize::MAX, usize::MAX, usize::MAX, MAX));
    }
}
