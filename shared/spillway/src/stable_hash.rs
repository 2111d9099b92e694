//! A hash that is the same in every process and version.

/// Returns the hash of `bytes` after what `state` has hashed. It reads eight bytes at a time, and
/// withstands no attacker.
pub fn stable_hash(state: u64, bytes: &[u8]) -> u64 {
    bytes.chunks(size_of::<u64>()).fold(mix(state, bytes.len() as u64), |hash, chunk| {
        let mut word = [0; size_of::<u64>()];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(hash, u64::from_le_bytes(word))
    })
}

/// Spreads the bits of `word` over the hash, with the constants of SplitMix64.
fn mix(hash: u64, word: u64) -> u64 {
    let hash = (hash ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn texts_have_hashes_that_never_change_and_differ() {
        assert_eq!(stable_hash(0, b"a conversation"), stable_hash(0, b"a conversation"));
        let texts = (0..100_000_u32).map(|number| format!("text {number}"));
        let hashes: HashSet<u64> = texts.map(|text| stable_hash(7, text.as_bytes())).collect();
        assert_eq!(hashes.len(), 100_000);
        assert_ne!(stable_hash(0, b"a"), stable_hash(0, b"a\0"));
        assert_ne!(stable_hash(stable_hash(0, b"a"), b"b"), stable_hash(stable_hash(0, b"b"), b"a"));
    }
}
