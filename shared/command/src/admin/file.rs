//! Files of tenants and models. A file is checked as a whole: the error lists every mistake with
//! its line.

use std::{collections::HashMap, ops::Range, path::Path};

use anyhow::{Context, bail};
use serde::{Deserialize, de::IgnoredAny};
use spillway::{
    pool::{Catalogue, Model},
    tenant::Tenant,
};
use toml::Spanned;

/// The valid tenants and models of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Entries {
    /// Tenants in the order of the file.
    pub tenants: Vec<Tenant>,
    /// Models in the order of the file.
    pub models: Vec<Model>,
}

/// A file may also describe a local deployment; the fields with an underscore are ignored here.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tenants: Vec<Spanned<Tenant>>,
    #[serde(default)]
    models: Vec<Spanned<Model>>,
    #[serde(default, rename = "keys")]
    _keys: Option<IgnoredAny>,
    #[serde(default, rename = "access_keys")]
    _access_keys: Option<IgnoredAny>,
    #[serde(default, rename = "simulator")]
    _simulator: Option<IgnoredAny>,
    #[serde(default, rename = "queue_faults")]
    _queue_faults: Option<IgnoredAny>,
}

impl Entries {
    /// Reads and checks `file`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is not valid. The error lists every mistake.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not valid; nothing was changed", file.display()))
    }

    /// Reads and checks the text of a file.
    ///
    /// # Errors
    /// Returns an error if the text is not valid. The error lists every mistake.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let file: File = toml::from_str(text)?;
        let mut errors = Vec::new();
        let mut lines = HashMap::new();
        for tenant in &file.tenants {
            let (span, tenant) = (tenant.span(), tenant.get_ref());
            errors.extend(located(text, span.clone(), "tenant", &tenant.name, tenant.check()));
            errors.extend(duplicate(text, span, &mut lines, "tenant", &tenant.name));
        }
        for model in &file.models {
            let (span, model) = (model.span(), model.get_ref());
            errors.extend(located(text, span.clone(), "model", &model.name, model.check()));
            errors.extend(duplicate(text, span, &mut lines, "model", &model.name));
        }
        let entries = Self {
            tenants: file.tenants.into_iter().map(Spanned::into_inner).collect(),
            models: file.models.into_iter().map(Spanned::into_inner).collect(),
        };
        errors.extend(Catalogue::new(entries.models.clone()).clashes());
        if !errors.is_empty() {
            bail!("{}", errors.join("\n"));
        }
        Ok(entries)
    }
}

/// Prefixes each of `errors` with its line and entry.
fn located(
    text: &str,
    span: Range<usize>,
    kind: &'static str,
    name: &str,
    errors: Vec<String>,
) -> impl Iterator<Item = String> {
    let place = format!("line {}: {kind} {name:?}", line(text, span));
    errors.into_iter().map(move |error| format!("{place}: {error}"))
}

/// Returns an error if an earlier entry of the same kind has the name.
fn duplicate(
    text: &str,
    span: Range<usize>,
    lines: &mut HashMap<(&'static str, String), usize>,
    kind: &'static str,
    name: &str,
) -> Option<String> {
    let line = line(text, span);
    let first = lines.insert((kind, name.to_owned()), line)?;
    Some(format!("line {line}: {kind} {name:?} is also on line {first}"))
}

/// Line on which a span begins, counted from 1.
fn line(text: &str, span: Range<usize>) -> usize {
    text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        format!("{:#}", Entries::parse(text).expect_err("an error"))
    }

    #[test]
    fn a_file_may_hold_tenants_models_and_settings_of_a_local_deployment() {
        let entries = Entries::parse(
            r#"
            [[tenants]]
            name = "acme"
            class = "interactive"
            [tenants.limits]
            requests_per_minute = 60
            [[models]]
            name = "claude"
            [[models.ladder]]
            name = "pt"
            kind = "provisioned"
            model_id = "arn:1"
            limits = { tokens_per_minute = 1_000 }
            [keys]
            acme = "sk-spill-acme-00"
            [simulator]
            anything = [1, 2]
            "#,
        )
        .expect("valid");
        assert_eq!(entries.tenants[0].limits.requests_per_minute, Some(60));
        assert_eq!(entries.models[0].ladder[0].limits.tokens_per_minute, Some(1_000));
    }

    #[test]
    fn the_demo_is_valid() {
        let demo = Entries::parse(include_str!("../demo.toml")).expect("valid");
        assert_eq!((demo.tenants.is_empty(), demo.models.is_empty()), (false, false));
    }

    #[test]
    fn an_unknown_field_is_refused_with_its_line() {
        let message = error("[[tenants]]\nname = \"acme\"\n[tenants.limits]\nrequests_per_hour = 60\n");
        assert!(message.contains("line 4") && message.contains("unknown field `requests_per_hour`"), "{message}");
        let message = error("[[tenant]]\nname = \"acme\"\n");
        assert!(message.contains("line 1") && message.contains("unknown field `tenant`"), "{message}");
    }

    #[test]
    fn every_mistake_is_reported_with_its_line() {
        let message = error(
            r#"
[[tenants]]
name = "acme"
hold_ms = 60_000
[tenants.limits]
in_flight = 0

[[tenants]]
name = "acme"

[[models]]
name = "one"
ladder = [{ name = "a", kind = "on_demand", model_id = "shared", burndown = 0 }]

[[models]]
name = "two"
ladder = [{ name = "a", kind = "on_demand", model_id = "shared" }]
"#,
        );
        let expected = [
            r#"line 2: tenant "acme": limits.in_flight: 0 admits nothing; leave it out for no limit"#,
            r#"line 2: tenant "acme": hold_ms: 60000 must be 0 to 50000"#,
            r#"line 8: tenant "acme" is also on line 2"#,
            r#"line 11: model "one": ladder[0].burndown: 0 must be 1 to 100"#,
            r#""shared" means model "one" and model "two""#,
        ];
        assert_eq!(message, expected.join("\n"));
    }
}
