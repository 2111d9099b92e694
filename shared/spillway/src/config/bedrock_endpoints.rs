//! Endpoints of Bedrock Runtime by region, such as VPC endpoints. Private DNS names resolve only to
//! the endpoint of the VPC's own region (AWS PrivateLink Guide, "Access AWS services through AWS
//! PrivateLink"), so a ladder over regions names the others.

use std::collections::BTreeMap;

/// Maximum number of regions in a list.
const MAX_REGIONS: usize = 64;

/// Endpoints of Bedrock Runtime by region. A region without an entry has its public endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BedrockEndpoints(BTreeMap<String, String>);

impl BedrockEndpoints {
    /// Parses entries such as `eu-west-1=https://vpce-1.example.com`, separated by commas. Returns
    /// `None` if `text` is not such a list.
    pub fn parse(text: &str) -> Option<Self> {
        let entries: Option<Vec<_>> = text.split(',').map(|entry| parse_entry(entry.trim())).collect();
        let entries = entries.filter(|entries| entries.len() <= MAX_REGIONS)?;
        let endpoints: BTreeMap<_, _> = entries.iter().cloned().collect();
        (endpoints.len() == entries.len()).then_some(Self(endpoints))
    }

    /// Returns the endpoint of `region`, if it is in the list.
    pub fn of(&self, region: &str) -> Option<&str> {
        self.0.get(region).map(String::as_str)
    }
}

fn parse_entry(entry: &str) -> Option<(String, String)> {
    let (region, url) = entry.split_once('=')?;
    let is_region = !region.is_empty() && region.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    (is_region && !host.is_empty()).then(|| (region.to_owned(), url.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_endpoints_is_parsed() {
        let endpoints = BedrockEndpoints::parse("eu-west-1=https://a.example.com, us-east-1=http://127.0.0.1:1");
        let endpoints = endpoints.expect("a list");
        assert_eq!(endpoints.of("eu-west-1"), Some("https://a.example.com"));
        assert_eq!(endpoints.of("us-east-1"), Some("http://127.0.0.1:1"));
        assert_eq!(endpoints.of("eu-central-1"), None);
    }

    #[test]
    fn a_list_with_a_malformed_or_repeated_entry_is_refused() {
        for text in [
            "",
            "eu-west-1",
            "eu-west-1=",
            "eu-west-1=https://",
            "eu-west-1=ftp://a",
            "=https://a",
            "EU=https://a",
            "eu-west-1=https://a,",
            "eu-west-1=https://a,eu-west-1=https://b",
        ] {
            assert_eq!(BedrockEndpoints::parse(text), None, "{text}");
        }
    }
}
