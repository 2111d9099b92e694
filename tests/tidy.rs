//! Rules of the architecture, most of them absences, and of the prose.
//!
//! Each rule reads the sources of the project. Beside it, a test plants a violation and finds it.

mod layers;
mod names;
mod prose;
mod purity;
mod security;
mod sizes;
pub mod source;

use source::{Source, assert_none, file, rust_files};

const LIBRARY: &str = "shared/spillway/src";

/// The lines of `sources` that hold `word`, outside the places in `allowed`.
fn lines_with(word: &str, sources: &[Source], allowed: &[&str]) -> Vec<String> {
    let outside = sources.iter().filter(|source| !allowed.iter().any(|place| source.path.contains(place)));
    let lines = outside.flat_map(|source| {
        let lines = (1..).zip(source.text.lines()).filter(|(_, line)| line.contains(word));
        lines.map(|(number, line)| format!("{}:{number}: {line}", source.path))
    });
    lines.collect()
}

#[test]
fn each_service_is_called_in_one_place() {
    let library = rust_files(LIBRARY);
    for (sdk, place) in [
        ("aws_sdk_dynamodb", "src/store"),
        ("aws_sdk_sqs", "src/queue"),
        ("aws_sdk_s3", "src/blobs"),
        ("aws_sdk_bedrockruntime", "src/model"),
    ] {
        assert_none(sdk, &lines_with(sdk, &library, &[place, "src/app"]));
    }
    let planted = [Source::planted("src/http/chat.rs", "use aws_sdk_sqs::Client;")];
    assert_eq!(lines_with("aws_sdk_sqs", &planted, &["src/queue"]).len(), 1);
}

#[test]
fn only_config_reads_the_environment() {
    for folder in [LIBRARY, "functions"] {
        for word in ["std::env", "env::var"] {
            assert_none(word, &lines_with(word, &rust_files(folder), &["src/config.rs"]));
        }
    }
}

#[test]
fn http_and_the_drain_do_not_import_each_other() {
    let files = |folder: &str| -> Vec<Source> {
        rust_files(LIBRARY).into_iter().filter(|source| source.path.contains(folder)).collect()
    };
    assert_none("http:", &lines_with("crate::drain", &files("src/http"), &[]));
    assert_none("drain:", &lines_with("crate::http", &files("src/drain"), &[]));
}

#[test]
fn overflow_is_the_only_builder_of_jobs() {
    let builders: Vec<String> = rust_files(LIBRARY)
        .iter()
        .filter(|source| !source.is_test_module())
        .filter(|source| source.text.split("mod tests").next().is_some_and(|product| product.contains("NewJob {")))
        .map(|source| source.path.clone())
        .collect();
    assert_eq!(builders, ["shared/spillway/src/job.rs", "shared/spillway/src/overflow/submit.rs"], "job.rs defines it");
}

#[test]
fn a_request_is_authenticated_and_its_preferences_are_read_in_one_place() {
    let http: Vec<Source> = rust_files(LIBRARY).into_iter().filter(|source| source.path.contains("src/http")).collect();
    assert_eq!(lines_with("auth::tenant(", &http, &[]).len(), 1);
    assert_eq!(lines_with("Preferences::read(", &http, &["http/preferences.rs"]).len(), 1);
}

/// The lines of the product that parse JSON with serde_json, without the tests of a file.
fn parses(source: &Source) -> Vec<String> {
    let product = source.text.split("mod tests").next().unwrap_or_default();
    let product = [Source::planted(&source.path, product)];
    ["serde_json::from_", "Deserializer::from_"].iter().flat_map(|word| lines_with(word, &product, &[])).collect()
}

#[test]
fn json_from_a_caller_is_parsed_in_one_place_which_checks_its_bounds() {
    // The others parse what the broker or a model wrote, or build no tree.
    let allowed = [
        "dialect/json",
        "batch/output.rs",
        "dialect/anthropic/native.rs",
        "dialect/openai/embeddings.rs",
        "dialect/openai/responses/background.rs",
        "dialect/openai/responses/encrypted_reasoning.rs",
        "dialect/openai/responses/item.rs",
    ];
    let of_callers = |source: &&Source| {
        let is_in = |folder: &str| source.path.contains(&format!("src/{folder}"));
        ["http", "dialect", "batch", "drain"].into_iter().any(is_in)
            && !allowed.iter().any(|place| source.path.contains(place))
    };
    let library = rust_files(LIBRARY);
    let violations: Vec<String> = library.iter().filter(of_callers).flat_map(parses).collect();
    assert_none("Unbounded JSON:", &violations);
    let planted = Source::planted("src/http/chat.rs", "let body: Value = serde_json::from_slice(&body)?;");
    assert!(of_callers(&&planted) && parses(&planted).len() == 1);
}

#[test]
fn the_stand_ins_depend_on_nothing_of_the_library() {
    assert_none("stand-ins:", &lines_with("spillway::", &rust_files("shared/stand-ins/src"), &[]));
    assert!(
        !file("shared/stand-ins/Cargo.toml").text.contains("spillway."),
        "the stand-ins may not depend on the library"
    );
    for package in ["shared/spillway", "functions/api", "functions/drain"] {
        let manifest = file(&format!("{package}/Cargo.toml")).text;
        let runtime = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        assert!(!runtime.contains("stand-ins"), "{package} may not contain a simulator");
    }
}

#[test]
fn the_mains_of_the_functions_are_thin_and_depend_on_the_library_alone() {
    for function in ["api", "drain"] {
        let main = file(&format!("functions/{function}/src/main.rs")).text;
        assert!(main.lines().count() <= 25, "the main of {function} is not thin");
        let manifest = file(&format!("functions/{function}/Cargo.toml")).text;
        let dependencies = manifest.split("[dependencies]").nth(1).and_then(|rest| rest.split('[').next());
        let dependencies: Vec<&str> = dependencies.expect("dependencies").split_whitespace().collect();
        assert_eq!(dependencies, ["spillway.workspace", "=", "true"]);
    }
}
