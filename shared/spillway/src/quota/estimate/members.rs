//! Members of bodies, by what they mean for the input of the model. The lists are closed: a member
//! that is in no list counts as text, with its name.

/// Members of a body that set how the model answers, and that no model reads.
const SETTINGS: [&str; 48] = [
    // Converse.
    "additionalModelResponseFieldPaths",
    "guardrailConfig",
    "inferenceConfig",
    "performanceConfig",
    "requestMetadata",
    "serviceTier",
    // Anthropic's Messages.
    "anthropic_beta",
    "anthropic_version",
    "max_tokens",
    "metadata",
    "service_tier",
    "stop_sequences",
    "stream",
    "temperature",
    "thinking",
    "tool_choice",
    "top_k",
    "top_p",
    // Chat completions.
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "model",
    "n",
    "parallel_tool_calls",
    "presence_penalty",
    "reasoning_effort",
    "seed",
    "stop",
    "store",
    "stream_options",
    "top_logprobs",
    "user",
    "verbosity",
    // Nova, Titan and Llama.
    "max_gen_len",
    "reasoningConfig",
    "reasoning_config",
    "schemaVersion",
    "textGenerationConfig",
    // Embeddings.
    "dimensions",
    "embeddingConfig",
    "embeddingTypes",
    "embedding_types",
    "input_type",
    "max_input_tokens",
    "normalize",
    "output_dimension",
    "truncate",
];

/// Members that hold parts of the prompt, and whose names are not part of it.
const CONTAINERS: [&str; 35] = [
    "arguments",
    "caller",
    "chat_history",
    "content",
    "data",
    "function",
    "guardContent",
    "id",
    "inputText",
    "is_error",
    "message",
    "messages",
    "name",
    "preamble",
    "prompt",
    "qualifiers",
    "reasoningContent",
    "reasoningText",
    "redactedContent",
    "role",
    "signature",
    "source",
    "status",
    "system",
    "text",
    "texts",
    "thinking",
    "title",
    "toolResult",
    "toolUse",
    "toolUseId",
    "tool_call_id",
    "tool_calls",
    "tool_use_id",
    "url",
];

/// Types of blocks whose members are known.
const PLAIN_BLOCKS: [&str; 6] = ["function", "redacted_thinking", "text", "thinking", "tool_result", "tool_use"];

/// Returns whether no model reads a member of a body.
pub fn is_setting(name: &str) -> bool {
    SETTINGS.contains(&name)
}

/// Returns whether a member holds parts of the prompt, and its name is not part of it.
pub fn is_container(name: &str) -> bool {
    CONTAINERS.contains(&name)
}

/// Returns whether all members of a block of type `kind` are known.
pub fn is_plain_block(kind: &str) -> bool {
    PLAIN_BLOCKS.contains(&kind)
}
