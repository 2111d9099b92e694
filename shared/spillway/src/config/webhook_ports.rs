//! Ports that webhook endpoints may have at public addresses. With any port, a tenant could let the
//! broker speak to servers that do not expect HTTP, from an address that they may trust.

/// Ports of HTTPS: the registered port, and its usual alternative.
const DEFAULT_PORTS: [u16; 2] = [443, 8443];

/// Maximum number of ports in a list.
const MAX_PORTS: usize = 16;

/// A list of ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookPorts(Vec<u16>);

impl Default for WebhookPorts {
    fn default() -> Self {
        Self(DEFAULT_PORTS.to_vec())
    }
}

impl WebhookPorts {
    /// Parses ports that are separated by commas. Returns `None` if `text` is not such a list.
    pub fn parse(text: &str) -> Option<Self> {
        let ports: Option<Vec<u16>> =
            text.split(',').map(|port| port.trim().parse().ok().filter(|port| *port > 0)).collect();
        ports.filter(|ports| ports.len() <= MAX_PORTS).map(Self)
    }

    /// Whether `port` is in the list.
    pub fn includes(&self, port: u16) -> bool {
        self.0.contains(&port)
    }

    /// Returns the list for an error, such as `443 or 8443`.
    pub fn names(&self) -> String {
        self.0.iter().map(u16::to_string).collect::<Vec<_>>().join(" or ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_ports_is_parsed() {
        assert_eq!(WebhookPorts::parse("443, 8443"), Some(WebhookPorts::default()));
        assert_eq!(WebhookPorts::parse("10443").map(|ports| ports.names()), Some("10443".to_owned()));
        for text in ["", ",", "443,", "0", "65536", "-1", "https", "443;8443"] {
            assert_eq!(WebhookPorts::parse(text), None, "{text}");
        }
        assert_eq!(WebhookPorts::parse(&vec!["443"; MAX_PORTS + 1].join(",")), None);
    }
}
