"""The requests that `compare_litellm.py` compares: chat completions, and Anthropic's messages."""

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHwAAAABJRU5ErkJggg=="
)
PDF = "JVBERi0xLjQKJcOkw7zDtsOfCg=="
SCHEMA = {"type": "object", "properties": {"river": {"type": "string"}}, "required": ["river"], "additionalProperties": False}
EPHEMERAL = {"cache_control": {"type": "ephemeral"}}


def user(content):
    return {"role": "user", "content": content}


def text(words, **more):
    return {"type": "text", "text": words, **more}


ASK = user("How long is the Elbe?")
FUNCTION = {"name": "river_length", "description": "The length of a river.", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}
TOOLS = {"messages": [ASK], "tools": [TOOL], "max_tokens": 64}


def call(number, river):
    arguments = f'{{"river": "{river}"}}'
    return {"id": f"call_{number}", "type": "function", "function": {"name": "river_length", "arguments": arguments}}


def result(number, content):
    return {"role": "tool", "tool_call_id": f"call_{number}", "content": content}


ROUND = [ASK, {"role": "assistant", "content": None, "tool_calls": [call(1, "Elbe")]}, result(1, "1094 km")]
PARALLEL = [
    user("How long are the Elbe and the Oder?"),
    {"role": "assistant", "content": "Both.", "tool_calls": [call(1, "Elbe"), call(2, "Oder")]},
    result(1, "1094 km"),
    result(2, "866 km"),
]
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
FILE = {"type": "file", "file": {"filename": "rivers.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "river", "schema": SCHEMA, "strict": True}}

CHATS = {
    "text": {"messages": [ASK], "max_tokens": 64},
    "parts": {"messages": [user([text("How long"), text("is the Elbe?")])], "max_tokens": 64},
    "system": {"messages": [{"role": "system", "content": "Be brief."}, ASK], "max_tokens": 64},
    "developer": {"messages": [{"role": "developer", "content": "Be brief."}, ASK], "max_tokens": 64},
    "turns": {"messages": [ASK, {"role": "assistant", "content": "1094 km."}, user("And the Oder?")], "max_tokens": 64},
    "two users": {"messages": [ASK, user("In kilometres.")], "max_tokens": 64},
    "tools": TOOLS,
    "tool without parameters": {**TOOLS, "tools": [{"type": "function", "function": {"name": "now"}}]},
    "strict tool": {**TOOLS, "tools": [{"type": "function", "function": {**FUNCTION, "strict": True}}]},
    "tool round": {**TOOLS, "messages": ROUND},
    "parallel tool results": {**TOOLS, "messages": PARALLEL},
    "tool result and words": {**TOOLS, "messages": [*ROUND, user("In miles?")]},
    "tool_choice auto": {**TOOLS, "tool_choice": "auto"},
    "tool_choice none": {**TOOLS, "tool_choice": "none"},
    "tool_choice required": {**TOOLS, "tool_choice": "required"},
    "tool_choice named": {**TOOLS, "tool_choice": {"type": "function", "function": {"name": "river_length"}}},
    "parallel_tool_calls false": {**TOOLS, "parallel_tool_calls": False},
    "image": {"messages": [user([text("What is this?"), IMAGE])], "max_tokens": 64},
    "document": {"messages": [user([text("What is this?"), FILE])], "max_tokens": 64},
    "stop": {"messages": [ASK], "max_tokens": 64, "stop": ["\n", "END"]},
    "json_schema": {"messages": [ASK], "max_tokens": 64, "response_format": FORMAT},
    "reasoning_effort": {"messages": [ASK], "max_tokens": 4_096, "reasoning_effort": "low"},
    "max_completion_tokens": {"messages": [ASK], "max_completion_tokens": 64},
    "temperature": {"messages": [ASK], "max_tokens": 64, "temperature": 0.5},
    "top_p": {"messages": [ASK], "max_tokens": 64, "top_p": 0.9},
    "service_tier": {"messages": [ASK], "max_tokens": 64, "service_tier": "auto"},
    "cached system": {
        "messages": [{"role": "system", "content": [text("Be brief.", **EPHEMERAL)]}, ASK],
        "max_tokens": 64,
    },
    "cached message": {"messages": [user([text("How long is the Elbe?", **EPHEMERAL)])], "max_tokens": 64},
}

QUESTION = {"messages": [ASK], "max_tokens": 64}
CUSTOM = {"name": "river_length", "description": "The length of a river.", "input_schema": SCHEMA}
USE = {"type": "tool_use", "id": "toolu_1", "name": "river_length", "input": {"river": "Elbe"}}
USED = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "1094 km"}
THOUGHT = {"type": "thinking", "thinking": "It is long.", "signature": "c2lnbmVk"}
THINKING = {"thinking": {"type": "enabled", "budget_tokens": 1_024}, "max_tokens": 2_048}

MESSAGES = {
    "messages text": QUESTION,
    "messages system": {**QUESTION, "system": "Be brief."},
    "messages stop": {**QUESTION, "stop_sequences": ["END"]},
    "messages top_k": {**QUESTION, "top_k": 5},
    "messages tools": {**QUESTION, "tools": [CUSTOM]},
    "messages tool any": {**QUESTION, "tools": [CUSTOM], "tool_choice": {"type": "any"}},
    "messages tool named": {**QUESTION, "tools": [CUSTOM], "tool_choice": {"type": "tool", "name": "river_length"}},
    "messages tool round": {
        **QUESTION,
        "tools": [CUSTOM],
        "messages": [ASK, {"role": "assistant", "content": [USE]}, user([USED])],
    },
    "messages failed tool": {
        **QUESTION,
        "tools": [CUSTOM],
        "messages": [ASK, {"role": "assistant", "content": [USE]}, user([{**USED, "is_error": True}])],
    },
    "messages image": {
        **QUESTION,
        "messages": [user([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}])],
    },
    "messages thinking": {**QUESTION, **THINKING},
    "messages thought": {
        **THINKING,
        "tools": [CUSTOM],
        "messages": [ASK, {"role": "assistant", "content": [THOUGHT, USE]}, user([USED])],
    },
    "messages cached system": {**QUESTION, "system": [text("Be brief.", **EPHEMERAL)]},
    "messages cached tool": {**QUESTION, "tools": [{**CUSTOM, **EPHEMERAL}]},
    "messages cached message": {**QUESTION, "messages": [user([text("How long is the Elbe?", **EPHEMERAL)])]},
}
