"""Expected differences between the bodies of Spillway and LiteLLM: reasons by request and path."""

DIFFERENCES = {
    "tool without parameters": {
        "toolConfig.tools[0].toolSpec.description": "optional in Converse; LiteLLM repeats the name",
        "toolConfig.tools[0].toolSpec.inputSchema.json.required": "an empty list of required properties has no effect",
    },
    "tool_choice auto": {"toolConfig.toolChoice.auto": "auto is the default of Converse"},
    "tool_choice none": {
        "refused": "LiteLLM refuses the request; Spillway sends it without its tools",
        "inferenceConfig.maxTokens": "LiteLLM refuses the request",
        "messages[0].role": "LiteLLM refuses the request",
        "messages[0].content[0].text": "LiteLLM refuses the request",
    },
    "parallel_tool_calls false": {
        "additionalModelRequestFields.tool_choice.disable_parallel_tool_use": "Spillway lists it in x-spillway-ignored",
        "additionalModelRequestFields.tool_choice.type": "Spillway lists it in x-spillway-ignored",
    },
    "document": {"messages[0].content[1].document.name": "Spillway sends the caller's file name, LiteLLM a digest"},
    "reasoning_effort": {
        "outputConfig.effort": "Spillway uses the field of Converse, which leaves the budget to the model",
        "additionalModelRequestFields.thinking.type": "LiteLLM converts the effort to a budget",
        "additionalModelRequestFields.thinking.budget_tokens": "LiteLLM converts the effort to a budget",
        "additionalModelResponseFieldPaths[0]": "LiteLLM requests the number of reasoning tokens",
    },
    "service_tier": {"serviceTier.type": "Spillway leaves the tier to the pool, which can set it"},
    "messages system": {
        "system": "Spillway sends the value unchanged",
        "system[0].type": "LiteLLM converts the text to a block",
        "system[0].text": "LiteLLM converts the text to a block",
    },
}
