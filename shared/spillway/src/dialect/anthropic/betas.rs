//! Anthropic's beta features on Bedrock.

use http::HeaderMap;

use crate::dialect::json::{Ignored, Path, sanitized};

/// Betas that InvokeModel accepts (Amazon Bedrock User Guide, "Anthropic Claude Messages API"; the
/// newer betas are from LiteLLM's table of beta headers). Any other beta fails the whole request
/// with "invalid beta flag".
const SUPPORTED: [&str; 20] = [
    "advanced-tool-use-2025-11-20",
    "compact-2026-01-12",
    "compact-2026-09-04",
    "computer-use-2024-10-22",
    "computer-use-2025-01-24",
    "computer-use-2025-11-24",
    "context-1m-2025-08-07",
    "context-management-2025-06-27",
    "dangerous-tool-use-2026-09-03",
    "effort-2025-11-24",
    "fine-grained-tool-streaming-2025-05-14",
    "interleaved-thinking-2025-05-14",
    "mid-conversation-output-config-2026-07-01",
    "mid-conversation-tool-changes-2026-07-01",
    "output-128k-2025-02-19",
    "thinking-binding-controls-2026-08-01",
    "thinking-display-updates-2026-08-18",
    "token-efficient-tools-2025-02-19",
    "tool-examples-2025-10-29",
    "tool-search-tool-2025-10-19",
];

/// Returns Bedrock's name for a beta.
fn bedrock_name(beta: &str) -> &str {
    match beta {
        "advanced-tool-use-2025-11-20" => "tool-search-tool-2025-10-19",
        _ => beta,
    }
}

/// Returns the betas in the `anthropic-beta` headers that Bedrock supports, without duplicates. It
/// lists the rest in `ignored`: Anthropic's own clients send them by default, for features that
/// have no effect here.
pub fn from_headers(headers: &HeaderMap, ignored: &mut Ignored) -> Vec<String> {
    let mut betas: Vec<String> = Vec::new();
    let values = headers.get_all("anthropic-beta").into_iter().filter_map(|value| value.to_str().ok());
    for beta in values.flat_map(|value| value.split(',')).map(str::trim).filter(|beta| !beta.is_empty()) {
        if !SUPPORTED.contains(&beta) {
            ignored.note(&Path::Root.key("anthropic-beta").key(&sanitized(beta)));
        } else if !betas.iter().any(|added| added == bedrock_name(beta)) {
            betas.push(bedrock_name(beta).to_owned());
        }
    }
    betas
}
