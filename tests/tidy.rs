//! The architecture's absences.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All Rust files below `folder`, with their paths from the root and their text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the project") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).expect("UTF-8")));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} holds no Rust file");
    found
}

/// Fails for every line of `folder` that holds `word`, outside the places in `allowed`.
fn only_in(word: &str, folder: &str, allowed: &[&str]) {
    for (name, text) in sources(folder) {
        let is_allowed = allowed.iter().any(|place| name.contains(place));
        for (number, line) in text.lines().enumerate().filter(|(_, line)| line.contains(word)) {
            assert!(is_allowed, "{name}:{}: {word} has no place here: {line}", number + 1);
        }
    }
}

#[test]
fn each_service_is_touched_in_one_place() {
    let library = "shared/spillway/src";
    only_in("aws_sdk_dynamodb", library, &["src/store", "src/app.rs"]);
    only_in("aws_sdk_sqs", library, &["src/queue", "src/app.rs"]);
    only_in("aws_sdk_s3", library, &["src/blobs", "src/app.rs"]);
    only_in("aws_sdk_bedrockruntime", library, &["src/model", "src/app.rs"]);
}

#[test]
fn what_decides_is_pure() {
    let know = [
        "batch",
        "chat",
        "validate",
        "http/wait/patience",
        "job",
        "pace",
        "plan",
        "pool",
        "price",
        "quota",
        "retry/identity",
        "retry/tape",
        "tenant",
        "webhook/address",
        "webhook/backoff",
        "webhook/endpoint",
        "webhook/event",
    ];
    let is_known = |name: &str| {
        let rest = name.trim_start_matches("shared/spillway/src/");
        know.iter().any(|module| rest == format!("{module}.rs") || rest.starts_with(&format!("{module}/")))
    };
    let known: Vec<_> = sources("shared/spillway/src").into_iter().filter(|(name, _)| is_known(name)).collect();
    assert!(known.len() > 10, "the list of what decides is out of date");
    for (name, text) in known {
        for word in ["async ", "aws_", "SystemTime", "Instant::now", "std::env"] {
            assert!(!text.contains(word), "{name} decides, and may not hold {word:?}");
        }
    }
}

#[test]
fn only_config_reads_the_environment() {
    for folder in ["shared/spillway/src", "functions"] {
        only_in("std::env", folder, &["src/config.rs"]);
        only_in("env::var", folder, &["src/config.rs"]);
    }
}

#[test]
fn nothing_forks_for_tests_or_laptops() {
    for folder in ["shared/spillway/src", "functions"] {
        for (name, text) in sources(folder) {
            let lines: Vec<&str> = text.lines().collect();
            for (number, line) in lines.iter().enumerate() {
                assert!(!line.contains("cfg(feature"), "{name}:{}: a feature that changes behaviour", number + 1);
                let is_module = lines.get(number + 1).is_some_and(|next| next.trim_start().starts_with("mod "));
                assert!(!line.contains("cfg(test)") || is_module, "{name}:{}: cfg(test) outside a module", number + 1);
                for word in ["localhost", "127.0.0.1"] {
                    assert!(!line.contains(word) || text.contains("mod tests"), "{name}:{}: {word}", number + 1);
                }
            }
        }
    }
}

#[test]
fn the_stand_ins_depend_on_nothing_of_ours() {
    only_in("spillway::", "shared/stand-ins/src", &[]);
    let manifest = fs::read_to_string(root().join("shared/stand-ins/Cargo.toml")).expect("a manifest");
    assert!(!manifest.contains("spillway."), "the stand-ins may not depend on the library");
    for package in ["shared/spillway", "functions/api", "functions/drain"] {
        let manifest = fs::read_to_string(root().join(package).join("Cargo.toml")).expect("a manifest");
        let runtime = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        assert!(!runtime.contains("stand-ins"), "{package} may not carry a simulator");
    }
}

#[test]
fn the_mains_of_the_functions_are_thin_and_know_only_the_library() {
    for function in ["api", "drain"] {
        let main = fs::read_to_string(root().join(format!("functions/{function}/src/main.rs"))).expect("a main");
        assert!(main.lines().count() <= 25, "the main of {function} is not thin");
        let manifest = fs::read_to_string(root().join(format!("functions/{function}/Cargo.toml"))).expect("a manifest");
        let dependencies = manifest.split("[dependencies]").nth(1).and_then(|rest| rest.split('[').next());
        let dependencies: Vec<&str> = dependencies.expect("dependencies").split_whitespace().collect();
        assert_eq!(dependencies, ["spillway.workspace", "=", "true"]);
    }
}

#[test]
fn no_trait_of_our_own() {
    for folder in ["shared/spillway/src", "shared/stand-ins/src", "shared/command/src", "shared/bench/src", "functions"]
    {
        for (name, text) in sources(folder) {
            for (number, line) in text.lines().enumerate() {
                let line = line.trim_start();
                assert!(
                    !line.starts_with("trait ") && !line.starts_with("pub trait ") && !line.contains(") trait "),
                    "{name}:{}: {line}",
                    number + 1
                );
            }
        }
    }
}
