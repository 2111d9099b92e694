//! The SAM template, read as text. Tests of `infra/` show that its alarms are deployed unchanged.

use std::{fs, path::Path};

/// The text of the template, or of a part of it.
pub struct Template(pub String);

impl Template {
    pub fn read() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/template.yaml");
        Self(fs::read_to_string(file).expect("a template"))
    }

    /// Returns the lines below the line `head`, up to the next line that is not indented deeper.
    pub fn below(&self, head: &str) -> Self {
        let depth = |line: &str| line.len() - line.trim_start().len();
        let mut lines = self.0.lines().skip_while(|line| line.trim() != head);
        let first = depth(lines.next().unwrap_or_else(|| panic!("no {head} in the template")));
        let below = lines.take_while(|line| line.trim().is_empty() || depth(line) > first);
        Self(below.collect::<Vec<_>>().join("\n"))
    }

    /// Returns the text after `name`, if there is one.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "))
    }

    /// Returns the number after `name`.
    pub fn number(&self, name: &str) -> u64 {
        let found = self.text(name).unwrap_or_else(|| panic!("no {name} in {}", self.0));
        found.parse().unwrap_or_else(|_| panic!("{name} is {found}"))
    }
}
