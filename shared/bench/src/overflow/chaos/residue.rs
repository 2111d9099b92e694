//! Which of some uncertain settlements did happen: those that add up to what the ledger holds beyond the certain ones.

use std::collections::BTreeMap;

use super::books::Tokens;

/// More sums than this are not searched.
const MOST_SUMS: usize = 500_000;

/// The places of those in `uncertain` that together make `sum`; `None` if no choice of them does.
pub fn find(sum: Tokens, uncertain: &[Tokens]) -> Option<Vec<usize>> {
    // For every sum that can be reached: the last one that was added, and the sum before.
    let mut reached: BTreeMap<Tokens, Option<(usize, Tokens)>> = BTreeMap::from([(Tokens::default(), None)]);
    for (place, tokens) in uncertain.iter().enumerate() {
        if reached.contains_key(&sum) || reached.len() > MOST_SUMS {
            break;
        }
        let further: Vec<_> = reached.keys().map(|before| (before.plus(*tokens), (place, *before))).collect();
        for (after, step) in further.into_iter().filter(|(after, _)| after.is_within(sum)) {
            reached.entry(after).or_insert(Some(step));
        }
    }
    let mut chosen = Vec::new();
    let mut at = sum;
    while let Some((place, before)) = *reached.get(&at)? {
        chosen.push(place);
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
    fn what_no_choice_explains_is_told() {
        assert_eq!(find(Tokens::default(), &[tokens(1, 2)]), Some(vec![]));
        assert_eq!(find(tokens(1, 3), &[tokens(1, 2), tokens(0, 1)]), None, "two requests are not one");
        assert_eq!(find(tokens(3, 3), &[tokens(1, 2), tokens(3, 3)]), Some(vec![1]));
    }

    proptest! {
        #[test]
        fn a_choice_is_found_if_there_is_one(
            all in prop::collection::vec((0u64..40, 0u64..40, any::<bool>()), 0..12),
        ) {
            let uncertain: Vec<_> = all.iter().map(|(input, output, _)| tokens(*input, *output)).collect();
            let happened = uncertain.iter().zip(&all).filter(|(_, (.., happened))| *happened);
            let sum = happened.fold(Tokens::default(), |sum, (tokens, _)| sum.plus(*tokens));
            let found = find(sum, &uncertain).expect("a choice");
            let found_sum = found.iter().fold(Tokens::default(), |sum, place| sum.plus(uncertain[*place]));
            prop_assert_eq!(found_sum, sum);
            let places: std::collections::BTreeSet<_> = found.iter().collect();
            prop_assert_eq!(places.len(), found.len());
        }
    }
}
