//! `tools` and `tool_choice` of a chat completions request.

use serde_json::{Value, json};

use crate::dialect::converse::{self, Body};
use crate::dialect::json::{self, Fields, Ignored, Path, Read, echo};

/// Which tool the model may call.
pub enum Choice {
    Auto,
    None,
    Required,
    Named(String),
}

/// Reads the tools and the choice between them.
pub fn read(fields: &mut Fields, inner: &mut Body, ignored: &mut Ignored) -> Read<()> {
    parallel(fields, ignored)?;
    let tools = fields.optional("tools", |value, at| {
        let tools = json::array(value, at)?.into_iter().enumerate();
        tools.map(|(index, value)| tool(value, &at.index(index), ignored)).collect::<Read<Vec<_>>>()
    })?;
    inner.tools = tools.unwrap_or_default();
    let chosen = fields.optional("tool_choice", |value, at| choice(value, at, named))?;
    choose(chosen, inner, ignored)
}

/// One call at a time cannot be asked of Converse; several at once is what it does anyway.
pub fn parallel(fields: &mut Fields, ignored: &mut Ignored) -> Read<()> {
    if fields.optional("parallel_tool_calls", json::boolean)? == Some(false) {
        ignored.note(&Path::Root.key("parallel_tool_calls"));
    }
    Ok(())
}

/// Makes the choice, once the tools and the conversation are known.
pub fn choose(chosen: Option<Choice>, inner: &mut Body, ignored: &mut Ignored) -> Read<()> {
    let at = Path::Root.key("tool_choice");
    inner.tool_choice = match chosen {
        None | Some(Choice::Auto) => None,
        // With calls in the history Converse insists on the definitions, and it cannot forbid their use.
        Some(Choice::None) if inner.turns.use_tools() => {
            ignored.note(&at);
            None
        }
        Some(Choice::None) => {
            inner.tools.clear();
            None
        }
        Some(_) if inner.tools.is_empty() => return Err(at.refuse("there are no tools to choose from")),
        Some(Choice::Required) => Some(json!({"any": {}})),
        Some(Choice::Named(name)) => Some(json!({"tool": {"name": name}})),
    };
    Ok(())
}

fn tool(value: Value, at: &Path, ignored: &mut Ignored) -> Read<Value> {
    let mut tool = Fields::of(value, at)?;
    function_type(&mut tool, at)?;
    let spec = tool.required("function", |value, at| {
        let mut function = Fields::of(value, at)?;
        let name = function.required("name", json::name)?;
        let spec = definition(name, &mut function)?;
        function.finish(ignored);
        Ok(spec)
    })?;
    tool.finish(ignored);
    Ok(spec)
}

/// The definition of a function that is called `name`.
pub fn definition(name: String, function: &mut Fields) -> Read<Value> {
    Ok(converse::tool(
        name,
        function.optional("description", json::string)?,
        function.optional("parameters", json::object)?.map(Value::Object),
        function.optional("strict", json::boolean)?,
    ))
}

/// Takes `type`, which must be `function`.
pub fn function_type(fields: &mut Fields, at: &Path) -> Read<()> {
    match fields.required("type", json::string)?.as_str() {
        "function" => Ok(()),
        other => Err(at.key("type").refuse(format_args!("{} is not supported; expected function", echo(other)))),
    }
}

/// Reads the choice; `named` reads the name out of an object that names a tool.
pub fn choice(value: Value, at: &Path, named: impl FnOnce(&mut Fields, &Path) -> Read<String>) -> Read<Choice> {
    match value {
        Value::String(word) => match word.as_str() {
            "auto" => Ok(Choice::Auto),
            "none" => Ok(Choice::None),
            "required" => Ok(Choice::Required),
            other => Err(at.refuse(format_args!("{} is not one of auto, none, required", echo(other)))),
        },
        Value::Object(members) => named(&mut Fields::new(members, at), at).map(Choice::Named),
        other => Err(at.mistyped("a string or an object", &other)),
    }
}

fn named(choice: &mut Fields, at: &Path) -> Read<String> {
    function_type(choice, at)?;
    choice.required("function", |value, at| Fields::of(value, at)?.required("name", json::name))
}
