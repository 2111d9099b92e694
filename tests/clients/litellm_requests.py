"""The requests of `compare_litellm.py`: chat completions, and Anthropic's messages."""

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHwAAAABJRU5ErkJggg=="
)
PDF = "JVBERi0xLjQKJcOkw7zDtsOfCg=="
SCHEMA = {"type": "object", "properties": {"river": {"type": "string"}}, "required": ["river"], "additionalProperties": False}
EPHEMERAL = {"cache_control": {"type": "ephemeral"}}


def user(content):
    return {"role": "user", "content": content}


def text_block(text, **fields):
    return {"type": "text", "text": text, **fields}


QUESTION = user("How long is the Elbe?")
FUNCTION = {"name": "river_length", "description": "The length of a river.", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}
TOOLS_REQUEST = {"messages": [QUESTION], "tools": [TOOL], "max_tokens": 64}


def call(number, river):
    arguments = f'{{"river": "{river}"}}'
    return {"id": f"call_{number}", "type": "function", "function": {"name": "river_length", "arguments": arguments}}


def result(number, content):
    return {"role": "tool", "tool_call_id": f"call_{number}", "content": content}


TOOL_ROUND = [QUESTION, {"role": "assistant", "content": None, "tool_calls": [call(1, "Elbe")]}, result(1, "1094 km")]
PARALLEL_TOOL_RESULTS = [
    user("How long are the Elbe and the Oder?"),
    {"role": "assistant", "content": "Both.", "tool_calls": [call(1, "Elbe"), call(2, "Oder")]},
    result(1, "1094 km"),
    result(2, "866 km"),
]
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
FILE = {"type": "file", "file": {"filename": "rivers.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "river", "schema": SCHEMA, "strict": True}}

CHATS = {
    "text": {"messages": [QUESTION], "max_tokens": 64},
    "parts": {"messages": [user([text_block("How long"), text_block("is the Elbe?")])], "max_tokens": 64},
    "system": {"messages": [{"role": "system", "content": "Be brief."}, QUESTION], "max_tokens": 64},
    "developer": {"messages": [{"role": "developer", "content": "Be brief."}, QUESTION], "max_tokens": 64},
    "turns": {"messages": [QUESTION, {"role": "assistant", "content": "1094 km."}, user("And the Oder?")], "max_tokens": 64},
    "two users": {"messages": [QUESTION, user("In kilometres.")], "max_tokens": 64},
    "tools": TOOLS_REQUEST,
    "tool without parameters": {**TOOLS_REQUEST, "tools": [{"type": "function", "function": {"name": "now"}}]},
    "strict tool": {**TOOLS_REQUEST, "tools": [{"type": "function", "function": {**FUNCTION, "strict": True}}]},
    "tool round": {**TOOLS_REQUEST, "messages": TOOL_ROUND},
    "parallel tool results": {**TOOLS_REQUEST, "messages": PARALLEL_TOOL_RESULTS},
    "tool result and words": {**TOOLS_REQUEST, "messages": [*TOOL_ROUND, user("In miles?")]},
    "tool_choice auto": {**TOOLS_REQUEST, "tool_choice": "auto"},
    "tool_choice none": {**TOOLS_REQUEST, "tool_choice": "none"},
    "tool_choice required": {**TOOLS_REQUEST, "tool_choice": "required"},
    "tool_choice named": {**TOOLS_REQUEST, "tool_choice": {"type": "function", "function": {"name": "river_length"}}},
    "parallel_tool_calls false": {**TOOLS_REQUEST, "parallel_tool_calls": False},
    "image": {"messages": [user([text_block("What is this?"), IMAGE])], "max_tokens": 64},
    "document": {"messages": [user([text_block("What is this?"), FILE])], "max_tokens": 64},
    "stop": {"messages": [QUESTION], "max_tokens": 64, "stop": ["\n", "END"]},
    "json_schema": {"messages": [QUESTION], "max_tokens": 64, "response_format": FORMAT},
    "reasoning_effort": {"messages": [QUESTION], "max_tokens": 4_096, "reasoning_effort": "low"},
    "max_completion_tokens": {"messages": [QUESTION], "max_completion_tokens": 64},
    "temperature": {"messages": [QUESTION], "max_tokens": 64, "temperature": 0.5},
    "top_p": {"messages": [QUESTION], "max_tokens": 64, "top_p": 0.9},
    "service_tier": {"messages": [QUESTION], "max_tokens": 64, "service_tier": "auto"},
    "cached system": {
        "messages": [{"role": "system", "content": [text_block("Be brief.", **EPHEMERAL)]}, QUESTION],
        "max_tokens": 64,
    },
    "cached message": {"messages": [user([text_block("How long is the Elbe?", **EPHEMERAL)])], "max_tokens": 64},
}

MESSAGES_REQUEST = {"messages": [QUESTION], "max_tokens": 64}
ANTHROPIC_TOOL = {"name": "river_length", "description": "The length of a river.", "input_schema": SCHEMA}
TOOL_USE = {"type": "tool_use", "id": "toolu_1", "name": "river_length", "input": {"river": "Elbe"}}
TOOL_RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "1094 km"}
THINKING_BLOCK = {"type": "thinking", "thinking": "It is long.", "signature": "c2lnbmVk"}
THINKING_FIELDS = {"thinking": {"type": "enabled", "budget_tokens": 1_024}, "max_tokens": 2_048}

MESSAGES = {
    "messages text": MESSAGES_REQUEST,
    "messages system": {**MESSAGES_REQUEST, "system": "Be brief."},
    "messages stop": {**MESSAGES_REQUEST, "stop_sequences": ["END"]},
    "messages top_k": {**MESSAGES_REQUEST, "top_k": 5},
    "messages tools": {**MESSAGES_REQUEST, "tools": [ANTHROPIC_TOOL]},
    "messages tool any": {**MESSAGES_REQUEST, "tools": [ANTHROPIC_TOOL], "tool_choice": {"type": "any"}},
    "messages tool named": {
        **MESSAGES_REQUEST,
        "tools": [ANTHROPIC_TOOL],
        "tool_choice": {"type": "tool", "name": "river_length"},
    },
    "messages tool round": {
        **MESSAGES_REQUEST,
        "tools": [ANTHROPIC_TOOL],
        "messages": [QUESTION, {"role": "assistant", "content": [TOOL_USE]}, user([TOOL_RESULT])],
    },
    "messages failed tool": {
        **MESSAGES_REQUEST,
        "tools": [ANTHROPIC_TOOL],
        "messages": [QUESTION, {"role": "assistant", "content": [TOOL_USE]}, user([{**TOOL_RESULT, "is_error": True}])],
    },
    "messages image": {
        **MESSAGES_REQUEST,
        "messages": [user([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}])],
    },
    "messages thinking": {**MESSAGES_REQUEST, **THINKING_FIELDS},
    "messages thought": {
        **THINKING_FIELDS,
        "tools": [ANTHROPIC_TOOL],
        "messages": [QUESTION, {"role": "assistant", "content": [THINKING_BLOCK, TOOL_USE]}, user([TOOL_RESULT])],
    },
    "messages cached system": {**MESSAGES_REQUEST, "system": [text_block("Be brief.", **EPHEMERAL)]},
    "messages cached tool": {**MESSAGES_REQUEST, "tools": [{**ANTHROPIC_TOOL, **EPHEMERAL}]},
    "messages cached message": {
        **MESSAGES_REQUEST,
        "messages": [user([text_block("How long is the Elbe?", **EPHEMERAL)])],
    },
}
