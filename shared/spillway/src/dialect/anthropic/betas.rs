//! Which of Anthropic's features in beta a request can have on Bedrock.

use http::HeaderMap;

use crate::dialect::json::{Ignored, Path, echo};

/// The betas that InvokeModel takes (Amazon Bedrock User Guide, "Anthropic Claude Messages API"; the newer ones as
/// LiteLLM's table of beta headers has them). Any other fails the whole request with "invalid beta flag".
const OF_BEDROCK: [&str; 20] = [
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

/// Bedrock's name of a beta, where it has another.
fn name(beta: &str) -> &str {
    match beta {
        "advanced-tool-use-2025-11-20" => "tool-search-tool-2025-10-19",
        _ => beta,
    }
}

/// Those of the `anthropic-beta` headers that Bedrock has, each once; the others are named in `ignored`. Anthropic's
/// own clients send them unasked, for features that do nothing here.
pub fn of_headers(headers: &HeaderMap, ignored: &mut Ignored) -> Vec<String> {
    let mut betas: Vec<String> = Vec::new();
    let values = headers.get_all("anthropic-beta").into_iter().filter_map(|value| value.to_str().ok());
    for beta in values.flat_map(|value| value.split(',')).map(str::trim).filter(|beta| !beta.is_empty()) {
        if !OF_BEDROCK.contains(&beta) {
            ignored.note(&Path::Root.key("anthropic-beta").key(&echo(beta)));
        } else if !betas.iter().any(|known| known == name(beta)) {
            betas.push(name(beta).to_owned());
        }
    }
    betas
}
