//! Embeddings: the same text always has the same vector.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};

/// Cohere Embed.
pub(super) mod cohere;
/// Amazon Titan Text Embeddings.
pub(super) mod titan;

/// Returns the vector of a text, with unit length if `normalized`.
fn vector(text: &str, dimensions: usize, normalized: bool) -> Vec<f64> {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let mut state = hasher.finish();
    let raw: Vec<f64> = (0..dimensions).map(|_| next_random(&mut state)).collect();
    let length = raw.iter().map(|value| value * value).sum::<f64>().sqrt();
    let scale = if normalized && length > 0.0 { length } else { 1.0 };
    // Eight digits, as in the responses of the models.
    raw.into_iter().map(|value| (value / scale * 1e8).round() / 1e8).collect()
}

/// Returns a pseudo-random number from -1 to 1 (SplitMix64).
fn next_random(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    let upper = u32::try_from(bits >> 32).unwrap_or(0);
    f64::from(upper) / f64::from(u32::MAX) * 2.0 - 1.0
}

/// Encodes a vector as one of the types of the models. `ubinary` and `binary` pack eight dimensions
/// into a byte.
fn encode(vector: &[f64], kind: &str) -> Value {
    match kind {
        "int8" => vector.iter().map(|value| (value * 127.0).round()).map(to_integer).collect(),
        "uint8" => vector.iter().map(|value| (value * 127.0).round() + 128.0).map(to_integer).collect(),
        "binary" => pack_bits(vector).map(|byte| json!(i64::from(byte) - 128)).collect(),
        "ubinary" => pack_bits(vector).map(|byte| json!(byte)).collect(),
        _ => json!(vector),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the number was rounded and is small")]
fn to_integer(value: f64) -> Value {
    json!(value as i64)
}

fn pack_bits(vector: &[f64]) -> impl Iterator<Item = u8> {
    vector.chunks(8).map(|bits| bits.iter().fold(0, |byte, value| byte << 1 | u8::from(*value > 0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_normalized_vector_has_unit_length_and_belongs_to_its_text() {
        let first = vector("hello", 1_024, true);
        let length: f64 = first.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-6);
        assert_eq!(first, vector("hello", 1_024, true));
        assert_ne!(first, vector("hallo", 1_024, true));
    }

    #[test]
    fn binary_types_hold_eight_dimensions_in_a_byte() {
        let vector = [1.0, -1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0];
        assert_eq!(encode(&vector, "ubinary"), json!([0b1011_0001]));
        assert_eq!(encode(&vector, "binary"), json!([0b1011_0001 - 128]));
        assert_eq!(encode(&[0.5, -0.5], "int8"), json!([64, -64]));
    }
}
