//! Pure decisions, one program for laptops and AWS, and no trait without need.

use std::collections::BTreeMap;

use syn::Item;

use super::source::{Source, assert_none, product_items, rust_files};

const LIBRARY: &str = "shared/spillway/src/";

/// Modules of facts and decisions, and pure files in other modules. Time is an argument to them.
const PURE: [&str; 33] = [
    "batch",
    "chat",
    "dialect",
    "http/preferences",
    "http/query",
    "http/route/path",
    "idempotency/identity",
    "idempotency/key",
    "idempotency/response_buffer",
    "job",
    "model_id",
    "outbound/address",
    "pool",
    "price",
    "profile_scope",
    "problem",
    "quota",
    "outage",
    "retention",
    "stable_hash",
    "stored_headers",
    "tenant",
    "units",
    "usage",
    "validate",
    "concurrency/window",
    "drain/lease",
    "drain/time_budget",
    "health/breaker",
    "health/first_bytes",
    "health/weight",
    "webhook/backoff",
    "webhook/event",
];

/// What a pure file does not contain.
const EFFECTS: [&str; 7] = ["async fn", "async move", "aws_sdk", "SystemTime", "Instant::now", "std::env", "tokio::"];

fn effects(source: &Source) -> Vec<String> {
    let product = source.text.split("mod tests").next().unwrap_or_default();
    let lines = (1..).zip(product.lines());
    let found = lines.filter(|(_, line)| EFFECTS.iter().any(|effect| line.contains(effect)));
    found.map(|(number, line)| format!("{}:{number}: {line}", source.path)).collect()
}

#[test]
fn decisions_are_pure() {
    let library = rust_files(LIBRARY);
    for module in PURE {
        let is_part = |source: &&Source| {
            let path = source.path.trim_start_matches(LIBRARY);
            path == format!("{module}.rs") || path.starts_with(&format!("{module}/"))
        };
        let files: Vec<&Source> = library.iter().filter(is_part).collect();
        assert!(!files.is_empty(), "there is no module {module}");
        let violations: Vec<String> = files.into_iter().flat_map(effects).collect();
        assert_none(module, &violations);
    }
    assert_eq!(effects(&Source::planted("quota.rs", "pub async fn reserve() {}")).len(), 1);
}

/// Code that behaves otherwise on a laptop, in a test or with a feature.
fn forks(source: &Source) -> Vec<String> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut violations = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let is_module = lines.get(index + 1).is_some_and(|next| next.trim_start().starts_with("mod "));
        let is_fork = line.contains("cfg(feature")
            || (line.contains("cfg(test)") && !is_module)
            || (["localhost", "127.0.0.1"].iter().any(|word| line.contains(word))
                && !source.text.contains("mod tests"));
        if is_fork {
            violations.push(format!("{}:{}: {line}", source.path, index + 1));
        }
    }
    violations
}

#[test]
fn the_product_is_the_same_on_laptops_in_tests_and_on_aws() {
    let sources = [LIBRARY, "functions"].into_iter().flat_map(rust_files);
    let violations: Vec<String> = sources.flat_map(|source| forks(&source)).collect();
    assert_none("Forks:", &violations);
    assert_eq!(forks(&Source::planted("a.rs", "#[cfg(test)]\nfn now() {}")).len(), 1);
}

/// Traits with fewer than two implementations in `sources`.
fn needless_traits(sources: &[Source]) -> Vec<String> {
    let mut implementations: BTreeMap<String, usize> = BTreeMap::new();
    for source in sources {
        for item in product_items(source.parse()) {
            match item {
                Item::Trait(item) => _ = implementations.entry(item.ident.to_string()).or_default(),
                Item::Impl(item) => {
                    let name =
                        item.trait_.and_then(|(path, _)| path.segments.last().map(|last| last.ident.to_string()));
                    if let Some(name) = name {
                        *implementations.entry(format!("impl {name}")).or_default() += 1;
                    }
                }
                _ => {}
            }
        }
    }
    let traits = implementations.keys().filter(|name| !name.starts_with("impl "));
    let needless = traits.filter(|name| implementations.get(&format!("impl {name}")).is_none_or(|count| *count < 2));
    needless.cloned().collect()
}

#[test]
fn no_trait_has_only_one_implementation() {
    let sources: Vec<Source> =
        ["shared/spillway/src", "shared/stand-ins/src", "shared/command/src", "shared/bench/src", "functions"]
            .into_iter()
            .flat_map(rust_files)
            .collect();
    assert_none("Traits:", &needless_traits(&sources));
    let planted = |implementations: &str| {
        needless_traits(&[Source::planted("a.rs", &format!("trait Port {{}} {implementations}"))]).len()
    };
    assert_eq!(planted("impl Port for A {}"), 1);
    assert_eq!(planted("impl Port for A {} impl Port for B {}"), 0);
}
