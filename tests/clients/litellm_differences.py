"""Where the bodies that Spillway sends differ from LiteLLM's, and why: by request and path."""

DIFFERENCES = {
    "tool without parameters": {
        "toolConfig.tools[0].toolSpec.description": "Converse needs none; theirs repeats the name",
        "toolConfig.tools[0].toolSpec.inputSchema.json.required": "an empty list of required properties says nothing",
    },
    "tool_choice auto": {"toolConfig.toolChoice.auto": "auto is what Converse does without a choice"},
    "tool_choice none": {
        "refused": "theirs refuses it, ours sends the request without its tools",
        "inferenceConfig.maxTokens": "theirs refuses it",
        "messages[0].role": "theirs refuses it",
        "messages[0].content[0].text": "theirs refuses it",
    },
    "parallel_tool_calls false": {
        "additionalModelRequestFields.tool_choice.disable_parallel_tool_use": "ours names it in x-spillway-ignored",
        "additionalModelRequestFields.tool_choice.type": "ours names it in x-spillway-ignored",
    },
    "document": {"messages[0].content[1].document.name": "ours is the caller's own file name, theirs a digest"},
    "reasoning_effort": {
        "outputConfig.effort": "Converse has a field for it, which leaves the budget to the model",
        "additionalModelRequestFields.thinking.type": "theirs turns an effort into a budget",
        "additionalModelRequestFields.thinking.budget_tokens": "theirs turns an effort into a budget",
        "additionalModelResponseFieldPaths[0]": "theirs asks the model how many tokens were reasoning",
    },
    "service_tier": {"serviceTier.type": "ours leaves the tier to the pool, which may have one of its own"},
    "messages system": {
        "system": "ours is sent as it came",
        "system[0].type": "theirs makes a block of the text",
        "system[0].text": "theirs makes a block of the text",
    },
}
