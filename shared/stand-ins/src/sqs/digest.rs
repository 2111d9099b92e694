//! MD5 checksums that SQS returns for bodies and message attributes.
//!
//! The attribute checksum covers the attributes in the order of their names. For each attribute it
//! covers the length-prefixed name, the length-prefixed data type, a byte for the kind of the value
//! (1 text, 2 binary) and the length-prefixed value. Lengths are 32-bit big-endian.

use std::collections::BTreeMap;

use md5::{Digest, Md5};

use super::message::AttributeValue;

/// Returns the MD5 of a message body in lower-case hexadecimal.
pub fn for_body(body: &str) -> String {
    to_hex(&Md5::digest(body.as_bytes()))
}

/// Returns the MD5 of message attributes, or `None` without attributes, because SQS then omits the
/// member.
pub fn for_attributes<'a>(attributes: impl IntoIterator<Item = (&'a String, &'a AttributeValue)>) -> Option<String> {
    let sorted: BTreeMap<_, _> = attributes.into_iter().collect();
    if sorted.is_empty() {
        return None;
    }
    let mut digest = Md5::new();
    for (name, value) in sorted {
        add(&mut digest, name.as_bytes());
        add(&mut digest, value.data_type.as_bytes());
        digest.update([if value.is_binary() { 2 } else { 1 }]);
        add(&mut digest, &value.bytes());
    }
    Some(to_hex(&digest.finalize()))
}

fn add(digest: &mut Md5, part: &[u8]) {
    digest.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
    digest.update(part);
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> AttributeValue {
        AttributeValue { data_type: "String".to_owned(), string_value: Some(value.to_owned()), ..Default::default() }
    }

    /// The expected digests were recorded from AWS.
    #[test]
    fn the_checksums_equal_the_checksums_of_aws() {
        assert_eq!(for_body("msg"), "6e2baaf3b97dbeef01c0043275f9a0e7");
        let hello = ("Hello".to_owned(), text("There"));
        let general = ("General".to_owned(), text("Kenobi"));
        let expected = Some("fca026605781cb4126a1e9044df24232".to_owned());
        assert_eq!(for_attributes([(&hello.0, &hello.1), (&general.0, &general.1)]), expected);
        assert_eq!(for_attributes([(&hello.0, &hello.1)]).as_deref(), Some("a311262e065454b75da111d535b8dacd"));
        assert_eq!(for_attributes([]), None);
    }
}
