//! SECURITY.md: the tests that it names as evidence exist.

use std::collections::BTreeSet;

use super::source::{Source, assert_none, file, files};

/// The last column of the tables that name tests.
const COLUMN: &str = "Tests";

/// A cell without a name says why.
const WITHOUT: &str = "no test: ";

/// The last cell of each row of the tables that name tests, with its line number.
fn cells(text: &str) -> Vec<(usize, &str)> {
    let mut names_tests = false;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let last = line.strip_suffix('|').and_then(|row| row.rsplit_once('|')).map(|(_, cell)| cell.trim());
        match last {
            None => names_tests = false,
            Some(COLUMN) => names_tests = true,
            Some(cell) if names_tests && !cell.starts_with("---") => found.push((number, cell)),
            Some(_) => {}
        }
    }
    found
}

/// The functions that `sources` define, in Rust and in Python.
fn functions(sources: &[Source]) -> BTreeSet<&str> {
    let lines = sources.iter().flat_map(|source| source.text.lines());
    let definitions = lines.filter_map(|line| {
        let line = line.trim_start();
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ").or(line.strip_prefix("def "))
    });
    definitions.filter_map(|rest| rest.split('(').next()).collect()
}

/// Names in the tables of `document` that no source defines, and rows that name no test.
fn missing(document: &Source, sources: &[Source]) -> Vec<String> {
    let defined = functions(sources);
    let mut violations = Vec::new();
    for (number, cell) in cells(&document.text) {
        let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        if names.is_empty() && !cell.starts_with(WITHOUT) {
            violations.push(format!("{}:{number}: the row names no test", document.path));
        }
        let unknown = names.into_iter().filter(|name| !defined.contains(name));
        violations.extend(unknown.map(|name| format!("{}:{number}: there is no test {name}", document.path)));
    }
    violations
}

#[test]
fn each_test_that_security_md_names_exists() {
    let sources: Vec<Source> =
        ["shared", "tests", "infra"].into_iter().flat_map(|folder| files(folder, &["rs", "py"])).collect();
    let document = file("SECURITY.md");
    assert!(cells(&document.text).len() > 20, "the tables are not found");
    assert_none("Evidence:", &missing(&document, &sources));
}

#[test]
fn a_planted_name_of_no_test_is_found() {
    let document = "| Threat | Limit | Tests |\n|---|---|---|\n| a | b | `it_holds`, `it_is_gone` |\n| c | d |  |\n\
                    | e | f | no test: AWS enforces it |\n\n| g | Files |\n|---|---|\n| h | `any` |\n";
    let sources = [Source::planted("a.rs", "async fn it_holds() {}\n"), Source::planted("a.py", "def it_fails():\n")];
    let violations = missing(&Source::planted("S.md", document), &sources);
    assert_eq!(violations, ["S.md:3: there is no test it_is_gone", "S.md:4: the row names no test"]);
}
