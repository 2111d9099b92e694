//! `tools` and `tool_choice` of a messages request.

use serde_json::Value;

use crate::dialect::{
    converse::{self, ConverseBody, ToolChoice},
    json::{self, Fields, Ignored, Path, Read, sanitized},
};

/// Reads the tools and the choice between them.
pub fn read(fields: &mut Fields, inner: &mut ConverseBody, ignored: &mut Ignored) -> Read<()> {
    if let Some(tools) = fields.optional("tools", json::array)? {
        for (index, value) in tools.into_iter().enumerate() {
            tool(value, &Path::Root.key("tools").index(index), &mut inner.tools, ignored)?;
        }
    }
    let choice = fields.optional("tool_choice", |value, at| tool_choice(value, at, ignored))?;
    inner.choose_tool(choice, ignored)
}

fn tool(value: Value, at: &Path, tools: &mut Vec<Value>, ignored: &mut Ignored) -> Read<()> {
    let mut tool = Fields::from_value(value, at)?;
    match tool.optional("type", json::string)?.as_deref() {
        None | Some("custom") => {}
        Some(unknown) => {
            let text = "is a tool that Anthropic defines or runs, which is not supported; expected custom";
            return Err(at.key("type").error(format_args!("{} {text}", sanitized(unknown))));
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

fn tool_choice(value: Value, at: &Path, ignored: &mut Ignored) -> Read<ToolChoice> {
    let mut fields = Fields::from_value(value, at)?;
    let choice = match fields.required("type", json::string)?.as_str() {
        "auto" => ToolChoice::Auto,
        "any" => ToolChoice::Any,
        "none" => ToolChoice::None,
        "tool" => ToolChoice::Named(fields.required("name", json::name)?),
        unknown => {
            let text = format_args!("{} is not one of auto, any, tool, none", sanitized(unknown));
            return Err(at.key("type").error(text));
        }
    };
    // Converse cannot disable parallel tool use, so `disable_parallel_tool_use` is listed as
    // ignored, like all remaining members.
    fields.finish(ignored);
    Ok(choice)
}
