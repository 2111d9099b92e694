//! Translates `tools` and `tool_choice` of a responses request to Converse.

use serde_json::{Value, json};

use super::{request::RequestReader, response::ToolAlias};
use crate::dialect::{
    converse,
    json::{self, Fields, Path, Read, sanitized},
    openai::tools,
};

impl RequestReader<'_> {
    /// Reads a list of tools. The tools of a namespace are one level deeper.
    pub fn tools(&mut self, value: Value, at: &Path, namespace: Option<&str>) -> Read<()> {
        for (index, value) in json::array(value, at)?.into_iter().enumerate() {
            self.tool(value, &at.index(index), namespace)?;
        }
        Ok(())
    }

    fn tool(&mut self, value: Value, at: &Path, namespace: Option<&str>) -> Read<()> {
        let mut tool = Fields::from_value(value, at)?;
        match tool.required("type", json::string)?.as_str() {
            "function" => self.function(&mut tool, namespace)?,
            "custom" => self.custom(&mut tool, at, namespace)?,
            "namespace" if namespace.is_none() => {
                let name = tool.required("name", json::name)?;
                tool.required("tools", |value, at| self.tools(value, at, Some(&name)))?;
            }
            // Codex offers both to every model, even if no server runs them.
            hosted if hosted == "tool_search" || (hosted == "web_search" && is_from_codex(&mut tool)) => {
                self.ignored.note(&at.key(hosted));
                return Ok(());
            }
            unknown => {
                let text = "is not supported, because Bedrock runs no tools; expected function, custom or namespace";
                return Err(at.key("type").error(format_args!("{} {text}", sanitized(unknown))));
            }
        }
        tool.finish(self.ignored);
        Ok(())
    }

    fn function(&mut self, tool: &mut Fields, namespace: Option<&str>) -> Read<()> {
        let name = tool.required("name", json::name)?;
        let model_name = model_name(namespace, &name);
        let definition = tools::definition(model_name.clone(), tool)?;
        self.inner.tools.push(definition);
        if namespace.is_some() {
            self.add_alias(model_name, name, namespace, false);
        }
        Ok(())
    }

    /// Reads a tool that takes free text. The model sees a function with one string. A grammar is
    /// added to the description, but not enforced.
    fn custom(&mut self, tool: &mut Fields, at: &Path, namespace: Option<&str>) -> Read<()> {
        let name = tool.required("name", json::name)?;
        let mut description = tool.optional("description", json::string)?.unwrap_or_default();
        if let Some((syntax, definition)) = tool.optional("format", grammar)?.flatten() {
            description.push_str(&format!("\n\nThe input must match this {syntax} grammar:\n{definition}"));
            self.ignored.note(&at.key("format"));
        }
        let model_name = model_name(namespace, &name);
        let schema = json!({"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"],
            "additionalProperties": false});
        self.inner.tools.push(converse::tool(model_name.clone(), Some(description), Some(schema), None));
        self.add_alias(model_name, name, namespace, true);
        Ok(())
    }

    fn add_alias(&mut self, model_name: String, name: String, namespace: Option<&str>, is_custom: bool) {
        let namespace = namespace.map(str::to_owned);
        self.echo.tools.push(ToolAlias { model_name, name, namespace, is_custom });
    }
}

/// Returns whether Codex added the web search. Only Codex sends this member. All other callers rely
/// on the search.
fn is_from_codex(tool: &mut Fields) -> bool {
    tool.take("external_web_access").is_some()
}

/// Reads the syntax and the definition of a grammar; `None` for plain text.
fn grammar(value: Value, at: &Path) -> Read<Option<(String, String)>> {
    let mut format = Fields::from_value(value, at)?;
    match format.required("type", json::string)?.as_str() {
        "text" => Ok(None),
        "grammar" => {
            let syntax = sanitized(&format.required("syntax", json::name)?);
            Ok(Some((syntax, format.required("definition", json::string)?)))
        }
        unknown => Err(at.key("type").error(format_args!("{} is not text or grammar", sanitized(unknown)))),
    }
}

/// Returns the model's name for a tool. The model has no namespaces.
pub fn model_name(namespace: Option<&str>, name: &str) -> String {
    namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}__{name}"))
}

/// Reads the model's name for the chosen tool.
pub fn tool_name(choice: &mut Fields, at: &Path) -> Read<String> {
    match choice.required("type", json::string)?.as_str() {
        "function" | "custom" => {
            let namespace = choice.optional("namespace", json::name)?;
            Ok(model_name(namespace.as_deref(), &choice.required("name", json::name)?))
        }
        unknown => Err(at
            .key("type")
            .error(format_args!("{} is not supported; expected function or custom", sanitized(unknown)))),
    }
}
