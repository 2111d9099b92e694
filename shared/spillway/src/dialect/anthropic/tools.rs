//! `tools` and `tool_choice` of a messages request.

use serde_json::{Value, json};

use crate::dialect::converse::{self, Body};
use crate::dialect::json::{self, Fields, Ignored, Path, Read, echo};

/// Which tool the model may call.
enum Choice {
    Auto,
    None,
    Any,
    Named(String),
}

/// Reads the tools and the choice between them.
pub fn read(fields: &mut Fields, inner: &mut Body, ignored: &mut Ignored) -> Read<()> {
    if let Some(tools) = fields.optional("tools", json::array)? {
        for (index, value) in tools.into_iter().enumerate() {
            tool(value, &Path::Root.key("tools").index(index), &mut inner.tools, ignored)?;
        }
    }
    let chosen = fields.optional("tool_choice", |value, at| choice(value, at, ignored))?;
    let at = Path::Root.key("tool_choice");
    inner.tool_choice = match chosen {
        None => None,
        // With calls in the history Converse insists on the definitions, and it cannot forbid their use.
        Some(Choice::None) if inner.turns.use_tools() => {
            ignored.note(&at);
            None
        }
        Some(Choice::None) => {
            inner.tools.clear();
            None
        }
        Some(Choice::Auto) => (!inner.tools.is_empty()).then(|| json!({"auto": {}})),
        Some(_) if inner.tools.is_empty() => return Err(at.refuse("there are no tools to choose from")),
        Some(Choice::Any) => Some(json!({"any": {}})),
        Some(Choice::Named(name)) => Some(json!({"tool": {"name": name}})),
    };
    Ok(())
}

fn tool(value: Value, at: &Path, tools: &mut Vec<Value>, ignored: &mut Ignored) -> Read<()> {
    let mut tool = Fields::of(value, at)?;
    match tool.optional("type", json::string)?.as_deref() {
        None | Some("custom") => {}
        Some(other) => {
            let text = "is a tool that Anthropic defines or runs, which is not supported; expected custom";
            return Err(at.key("type").refuse(format_args!("{} {text}", echo(other))));
        }
    }
    tools.push(converse::tool(
        tool.required("name", json::name)?,
        tool.optional("description", json::string)?,
        Some(Value::Object(tool.required("input_schema", json::object)?)),
        tool.optional("strict", json::boolean)?,
    ));
    tools.extend(tool.optional("cache_control", converse::cache_point)?);
    tool.finish(ignored);
    Ok(())
}

fn choice(value: Value, at: &Path, ignored: &mut Ignored) -> Read<Choice> {
    let mut fields = Fields::of(value, at)?;
    let choice = match fields.required("type", json::string)?.as_str() {
        "auto" => Choice::Auto,
        "any" => Choice::Any,
        "none" => Choice::None,
        "tool" => Choice::Named(fields.required("name", json::name)?),
        other => {
            let text = format_args!("{} is not one of auto, any, tool, none", echo(other));
            return Err(at.key("type").refuse(text));
        }
    };
    // `disable_parallel_tool_use` cannot be asked of Converse; if set, it is named here with whatever else is left.
    fields.finish(ignored);
    Ok(choice)
}
