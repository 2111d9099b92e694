//! Buckets of S3 that a tenant's requests may name.

/// Scheme of a URI of S3, as Bedrock reads it.
const SCHEME: &str = "s3://";

/// Maximum length of a URI in characters (Amazon Bedrock API Reference, "S3Location").
const MAX_URI_CHARS: usize = 1_024;

/// Returns the bucket of an S3 URI: `s3://bucket` or `s3://bucket/key`. Returns `None` for any
/// other form, so that no two readers can take it for different buckets.
pub fn bucket_of_uri(uri: &str) -> Option<&str> {
    let rest = uri.strip_prefix(SCHEME)?;
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    let is_whole = |segment: &str| !matches!(segment, "." | "..");
    let is_key = key.split('/').all(is_whole) && !key.chars().any(|c| c.is_control() || c == '\\');
    (uri.chars().count() <= MAX_URI_CHARS && is_bucket(bucket) && is_key).then_some(bucket)
}

/// Returns whether `name` is the name of a bucket (Amazon S3 User Guide, "General purpose bucket
/// naming rules").
pub fn is_bucket(name: &str) -> bool {
    let is_edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (3..=63).contains(&name.len())
        && name.bytes().all(|byte| is_edge(&byte) || byte == b'-' || byte == b'.')
        && [name.bytes().next(), name.bytes().next_back()].iter().flatten().all(is_edge)
        && !name.contains("..")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_plain_uri_has_a_bucket() {
        for (uri, bucket) in [
            ("s3://shared-media/folder/a file.mp4", "shared-media"),
            ("s3://shared-media", "shared-media"),
            ("s3://shared.media/", "shared.media"),
            ("s3://shared-media//a/%2e%2e/..b?versionId=1", "shared-media"),
        ] {
            assert_eq!(bucket_of_uri(uri), Some(bucket), "{uri}");
        }
        for uri in [
            "",
            "s3://",
            "s3:/shared-media/k",
            "s3:shared-media",
            "S3://shared-media/k",
            " s3://shared-media/k",
            "s3a://shared-media/k",
            "s3://SHARED-media/k",
            "s3://shared-media@other/k",
            "s3://other:80/k",
            "s3://shared-media?x=/k",
            "s3://shared-media#x/k",
            "s3:///shared-media/k",
            "s3://shared_media/k",
            "s3://sh/k",
            "s3://-shared/k",
            "s3://shared..media/k",
            "s3://shared-media\\other/k",
            "s3://shared-media/../other/k",
            "s3://shared-media/a/./k",
            "s3://shared-media/a\nb",
            "s3://arn:aws:s3:us-east-1:123456789012:accesspoint/point/k",
            "arn:aws:s3:::shared-media/k",
            "https://shared-media.s3.amazonaws.com/k",
        ] {
            assert_eq!(bucket_of_uri(uri), None, "{uri}");
        }
        assert_eq!(bucket_of_uri(&format!("s3://shared-media/{}", "k".repeat(1_007))), None);
    }

    /// Returns the bucket that the pattern of Bedrock's `S3Uri` finds in `uri`, however lenient its
    /// reader is: with any case of the scheme, white space, and a URL's user, port and query.
    fn lenient_bucket(uri: &str) -> Option<String> {
        let uri = uri.trim();
        let rest = uri.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case(SCHEME)).map(|_| &uri[5..])?;
        let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        Some(host.split(':').next().unwrap_or_default().to_ascii_lowercase())
    }

    proptest! {
        #[test]
        fn a_bucket_is_the_one_that_a_lenient_reader_finds(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "s3://", "S3://", "s3:", "/", "//", "own-bucket", "shared-media", "@", ":", ":443", "?", "#", "%2f",
                    "\\", "..", ".", " ", "\t", "\u{0}", "key", "é", "A", "arn:aws:s3:::",
                ]),
                0..9,
            ),
            is_uri in any::<bool>(),
        ) {
            let uri = if is_uri { format!("s3://shared-media{}", parts.concat()) } else { parts.concat() };
            if let Some(bucket) = bucket_of_uri(&uri) {
                prop_assert!(is_bucket(bucket));
                let found = lenient_bucket(&uri);
                prop_assert_eq!(found.as_deref(), Some(bucket));
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(uri in ".{0,40}") {
            let bucket = bucket_of_uri(&uri);
            prop_assert!(bucket.is_none_or(|bucket| uri[SCHEME.len()..].starts_with(bucket)));
        }
    }
}
