//! `tools` and `tool_choice` of a chat completions request.

use serde_json::Value;

use crate::dialect::{
    converse::{self, ConverseBody, ToolChoice},
    json::{self, Fields, Ignored, Path, Read, sanitized},
};

/// Reads the tools and the choice between them.
pub fn read(fields: &mut Fields, inner: &mut ConverseBody, ignored: &mut Ignored) -> Read<()> {
    parallel(fields, ignored)?;
    let tools = fields.optional("tools", |value, at| {
        let tools = json::array(value, at)?.into_iter().enumerate();
        tools.map(|(index, value)| tool(value, &at.index(index), ignored)).collect::<Read<Vec<_>>>()
    })?;
    inner.tools = tools.unwrap_or_default();
    let choice = fields.optional("tool_choice", |value, at| choice(value, at, named))?;
    inner.choose_tool(choice.flatten(), ignored)
}

/// Reads `parallel_tool_calls`. Converse always allows parallel calls and cannot disable them.
pub fn parallel(fields: &mut Fields, ignored: &mut Ignored) -> Read<()> {
    if fields.optional("parallel_tool_calls", json::boolean)? == Some(false) {
        ignored.note(&Path::Root.key("parallel_tool_calls"));
    }
    Ok(())
}

fn tool(value: Value, at: &Path, ignored: &mut Ignored) -> Read<Value> {
    let mut tool = Fields::from_value(value, at)?;
    function_type(&mut tool, at)?;
    let spec = tool.required("function", |value, at| {
        let mut function = Fields::from_value(value, at)?;
        let name = function.required("name", json::name)?;
        let spec = definition(name, &mut function)?;
        function.finish(ignored);
        Ok(spec)
    })?;
    tool.finish(ignored);
    Ok(spec)
}

/// Reads the definition of the function `name`.
pub fn definition(name: String, function: &mut Fields) -> Read<Value> {
    Ok(converse::tool(
        name,
        function.optional("description", json::string)?,
        function.optional("parameters", json::object)?.map(Value::Object),
        function.optional("strict", json::boolean)?,
    ))
}

/// Reads `type`, which must be `function`.
pub fn function_type(fields: &mut Fields, at: &Path) -> Read<()> {
    match fields.required("type", json::string)?.as_str() {
        "function" => Ok(()),
        unknown => {
            Err(at.key("type").error(format_args!("{} is not supported; expected function", sanitized(unknown))))
        }
    }
}

/// Reads the choice; `None` for the default. `named` reads the name of a tool from an object.
pub fn choice(
    value: Value,
    at: &Path,
    named: impl FnOnce(&mut Fields, &Path) -> Read<String>,
) -> Read<Option<ToolChoice>> {
    match value {
        Value::String(word) => match word.as_str() {
            "auto" => Ok(None),
            "none" => Ok(Some(ToolChoice::None)),
            "required" => Ok(Some(ToolChoice::Any)),
            unknown => Err(at.error(format_args!("{} is not one of auto, none, required", sanitized(unknown)))),
        },
        Value::Object(members) => named(&mut Fields::new(members, at), at).map(|name| Some(ToolChoice::Named(name))),
        value => Err(at.mistyped("a string or an object", &value)),
    }
}

fn named(choice: &mut Fields, at: &Path) -> Read<String> {
    function_type(choice, at)?;
    choice.required("function", |value, at| Fields::from_value(value, at)?.required("name", json::name))
}
