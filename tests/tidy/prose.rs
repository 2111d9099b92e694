//! Plain English in comments, messages and documents.

use super::source::{Source, assert_none, file, files, rust_files, strings};

/// The last column of a comment line.
const MAX_COMMENT_COLUMNS: usize = 100;

/// Words and phrases that have a plainer form. A phrase is matched at word boundaries, in any case.
const WORDS: [&str; 23] = [
    "told",
    "tell",
    "tells",
    "who",
    "whoever",
    "whom",
    "those",
    "somebody",
    "nobody",
    "everybody",
    "anybody",
    "of its own",
    "of their own",
    "for ever",
    "in vain",
    "finds fault",
    "what there is",
    "what is there",
    "the same again",
    "so many of them",
    "is to be told",
    "at once or not",
    "as the case may be",
];

/// Files that hold the words themselves.
const EXEMPT: [&str; 2] = ["tests/tidy/prose.rs", "tests/tidy/names.rs"];

fn has_phrase(text: &str, phrase: &str) -> bool {
    let text = text.to_lowercase();
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    text.match_indices(phrase).any(|(start, found)| {
        let before = text[..start].chars().next_back();
        let after = text[start + found.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

fn bad_words(path: &str, line: usize, text: &str) -> Vec<String> {
    let bad = WORDS.into_iter().filter(|phrase| has_phrase(text, phrase));
    bad.map(|phrase| format!("{path}:{line}: \"{phrase}\": {}", text.trim())).collect()
}

/// Violations in the comments and string literals of a Rust file.
pub fn in_rust(source: &Source) -> Vec<String> {
    let mut violations = Vec::new();
    for (line, text) in (1..).zip(source.text.lines()) {
        let trimmed = text.trim_start();
        if trimmed.starts_with("//") {
            violations.extend(bad_words(&source.path, line, trimmed));
            if text.chars().count() > MAX_COMMENT_COLUMNS {
                violations
                    .push(format!("{}:{line}: a comment line ends after column {MAX_COMMENT_COLUMNS}", source.path));
            }
        }
    }
    let tokens = source.text.parse().unwrap_or_else(|error| panic!("{} is not Rust: {error}", source.path));
    // Doc comments are string literals to the compiler; they were read above.
    let is_doc =
        |line: usize| source.text.lines().nth(line - 1).is_some_and(|text| text.trim_start().starts_with("//"));
    for (line, text) in strings(tokens).into_iter().filter(|(line, _)| !is_doc(*line)) {
        violations.extend(bad_words(&source.path, line, &text));
    }
    violations
}

/// Violations in a file that is prose, or a script with prose in it.
fn in_text(source: &Source) -> Vec<String> {
    (1..).zip(source.text.lines()).flat_map(|(line, text)| bad_words(&source.path, line, text)).collect()
}

#[test]
fn rust_comments_and_messages_are_plain_english() {
    let mut violations = Vec::new();
    for folder in ["shared", "functions", "tests"] {
        let is_checked = |source: &&Source| !EXEMPT.contains(&source.path.as_str());
        for source in rust_files(folder).iter().filter(is_checked) {
            violations.extend(in_rust(source));
        }
    }
    assert_none("Prose:", &violations);
}

#[test]
fn documents_and_scripts_are_plain_english() {
    let mut violations = Vec::new();
    for folder in ["docs", "infra", "tests", "shared"] {
        for source in &files(folder, &["md", "py", "mjs", "yaml", "toml"]) {
            violations.extend(in_text(source));
        }
    }
    for path in [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "deny.toml",
        "Cargo.toml",
        ".ci/run",
    ] {
        violations.extend(in_text(&file(path)));
    }
    assert_none("Prose:", &violations);
}

#[test]
fn planted_prose_is_found() {
    let rust = |text: &str| in_rust(&Source::planted("a.rs", text)).len();
    assert_eq!(rust("/// Who asks.\nstruct Ask;"), 1);
    assert_eq!(rust("fn f() { g(\"the caller was told\") }"), 1);
    assert_eq!(rust("fn f() { g!(\"nobody\", { \"a life of its own\" }) }"), 2);
    assert_eq!(rust(&format!("// {}\n", "x".repeat(MAX_COMMENT_COLUMNS))), 1);
    assert_eq!(rust("/// Whole, wholly: these words are fine.\nfn whoops() {}"), 0);
    assert_eq!(in_text(&Source::planted("a.md", "It waits for ever.\nIt waits forever.")).len(), 1);
}
