//! `tools` and `tool_choice` of a responses request.

use serde_json::{Value, json};

use super::echo::{KnownTool, ResponseEcho, model_name};
use crate::dialect::converse::{self, Body};
use crate::dialect::json::{self, Fields, Ignored, Path, Read, echo};
use crate::dialect::openai::tools;

/// Where the tools of a request go.
pub struct Reader<'r> {
    pub inner: &'r mut Body,
    pub echo: &'r mut ResponseEcho,
    pub ignored: &'r mut Ignored,
}

impl Reader<'_> {
    /// Reads a list of tools; those of a namespace stand one level deeper.
    pub fn tools(&mut self, value: Value, at: &Path, namespace: Option<&str>) -> Read<()> {
        for (index, value) in json::array(value, at)?.into_iter().enumerate() {
            self.tool(value, &at.index(index), namespace)?;
        }
        Ok(())
    }

    fn tool(&mut self, value: Value, at: &Path, namespace: Option<&str>) -> Read<()> {
        let mut tool = Fields::of(value, at)?;
        match tool.required("type", json::string)?.as_str() {
            "function" => self.function(&mut tool, namespace)?,
            "custom" => self.custom(&mut tool, at, namespace)?,
            "namespace" if namespace.is_none() => {
                let name = tool.required("name", json::name)?;
                tool.required("tools", |value, at| self.tools(value, at, Some(&name)))?;
            }
            // Codex offers both to every model, whether or not there is somebody to serve them.
            hosted if hosted == "tool_search" || (hosted == "web_search" && says_which_web(&mut tool)) => {
                self.ignored.note(&at.key(hosted));
                return Ok(());
            }
            other => {
                let told = "is not supported, since Bedrock runs no tools; expected function, custom or namespace";
                return Err(at.key("type").refuse(format_args!("{} {told}", echo(other))));
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
            self.know(model_name, name, namespace, false);
        }
        Ok(())
    }

    /// A tool that takes free text: to the model a function with one string. It is told a grammar, but not held to it.
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
        self.know(model_name, name, namespace, true);
        Ok(())
    }

    fn know(&mut self, model_name: String, name: String, namespace: Option<&str>, is_custom: bool) {
        let namespace = namespace.map(str::to_owned);
        self.echo.tools.push(KnownTool { model_name, name, namespace, is_custom });
    }
}

/// Only Codex says whether a search may leave OpenAI's own index; who asks for a search otherwise wants one.
fn says_which_web(tool: &mut Fields) -> bool {
    tool.take("external_web_access").is_some()
}

/// The syntax and the definition of a grammar; none for plain text.
fn grammar(value: Value, at: &Path) -> Read<Option<(String, String)>> {
    let mut format = Fields::of(value, at)?;
    match format.required("type", json::string)?.as_str() {
        "text" => Ok(None),
        "grammar" => {
            let syntax = echo(&format.required("syntax", json::name)?);
            Ok(Some((syntax, format.required("definition", json::string)?)))
        }
        other => Err(at.key("type").refuse(format_args!("{} is not text or grammar", echo(other)))),
    }
}

/// The model's name of the tool that a choice names.
pub fn named(choice: &mut Fields, at: &Path) -> Read<String> {
    match choice.required("type", json::string)?.as_str() {
        "function" | "custom" => {
            let namespace = choice.optional("namespace", json::name)?;
            Ok(model_name(namespace.as_deref(), &choice.required("name", json::name)?))
        }
        other => {
            Err(at.key("type").refuse(format_args!("{} is not supported; expected function or custom", echo(other))))
        }
    }
}
