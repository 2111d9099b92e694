//! Finds out which uncertain settlements happened: a subset that adds up to the ledger's excess
//! over the certain settlements.

use std::collections::BTreeMap;

use super::tokens::Tokens;

/// Maximum number of sums to search.
const MAX_SUMS: usize = 500_000;

/// Returns the indexes of a subset of `uncertain` that adds up to `sum`; `None` if there is none.
pub fn find(sum: Tokens, uncertain: &[Tokens]) -> Option<Vec<usize>> {
    // For every reachable sum: the index that was added last, and the previous sum.
    let mut reached: BTreeMap<Tokens, Option<(usize, Tokens)>> = BTreeMap::from([(Tokens::default(), None)]);
    for (index, tokens) in uncertain.iter().enumerate() {
        if reached.contains_key(&sum) || reached.len() > MAX_SUMS {
            break;
        }
        let next: Vec<_> = reached.keys().map(|before| (before.plus(*tokens), (index, *before))).collect();
        for (after, step) in next.into_iter().filter(|(after, _)| after.is_within(sum)) {
            reached.entry(after).or_insert(Some(step));
        }
    }
    let mut chosen = Vec::new();
    let mut at = sum;
    while let Some((index, before)) = *reached.get(&at)? {
        chosen.push(index);
        at = before;
    }
    chosen.reverse();
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(input: u64, output: u64) -> Tokens {
        Tokens { requests: 1, input, output }
    }

    #[test]
    fn a_sum_without_a_subset_is_not_found() {
        assert_eq!(find(Tokens::default(), &[tokens(1, 2)]), Some(vec![]));
        assert_eq!(
            find(tokens(1, 3), &[tokens(1, 2), tokens(0, 1)]),
            None,
            "two requests do not add up to a single request"
        );
        assert_eq!(find(tokens(3, 3), &[tokens(1, 2), tokens(3, 3)]), Some(vec![1]));
    }

    proptest! {
        #[test]
        fn a_subset_is_found_if_one_exists(
            settlements in prop::collection::vec((0u64..40, 0u64..40, any::<bool>()), 0..12),
        ) {
            let uncertain: Vec<_> = settlements.iter().map(|(input, output, _)| tokens(*input, *output)).collect();
            let happened = uncertain.iter().zip(&settlements).filter(|(_, (.., happened))| *happened);
            let sum = happened.fold(Tokens::default(), |sum, (tokens, _)| sum.plus(*tokens));
            let found = find(sum, &uncertain).expect("a subset");
            let found_sum = found.iter().fold(Tokens::default(), |sum, index| sum.plus(uncertain[*index]));
            prop_assert_eq!(found_sum, sum);
            let indexes: std::collections::BTreeSet<_> = found.iter().collect();
            prop_assert_eq!(indexes.len(), found.len());
        }
    }
}
