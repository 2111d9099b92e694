//! The conversation that a request belongs to: what its later requests have in common with it.

use serde_json::{Map, Value};

use super::Input;
use crate::stable_hash::stable_hash;

/// Length of the part at each end of a long text that is hashed.
const HASHED_BYTES: usize = 2_048;

impl Input {
    /// Returns a hash of the system prompt, the tools and the first message of the user, with which
    /// all requests of a conversation begin. `None` if the body has no messages. Of a long text,
    /// the ends and the length count. Marks of the prompt cache do not count, because they move
    /// with the conversation.
    pub fn conversation(&self) -> Option<u64> {
        let body = self.bodies().first()?;
        let messages = body.get("messages")?.as_array()?;
        let is_user = |message: &Value| message.get("role").and_then(Value::as_str) == Some("user");
        let first = messages.iter().position(is_user)?;
        let prefix = ["system", "tools", "toolConfig"].into_iter().filter_map(|member| body.get(member));
        Some(prefix.chain(&messages[..=first]).fold(0, hash_value))
    }
}

fn hash_value(hash: u64, value: &Value) -> u64 {
    match value {
        Value::Null => stable_hash(hash, b"n"),
        Value::Bool(value) => stable_hash(hash, &[u8::from(*value)]),
        Value::Number(number) => stable_hash(hash, number.to_string().as_bytes()),
        Value::String(text) => hash_text(hash, text),
        Value::Array(values) => {
            values.iter().filter(|value| !is_cache_point(value)).fold(stable_hash(hash, b"["), hash_value)
        }
        Value::Object(members) => hash_object(hash, members),
    }
}

fn hash_object(hash: u64, members: &Map<String, Value>) -> u64 {
    let members = members.iter().filter(|(name, _)| *name != "cache_control");
    members.fold(stable_hash(hash, b"{"), |hash, (name, value)| hash_value(hash_text(hash, name), value))
}

fn hash_text(hash: u64, text: &str) -> u64 {
    let bytes = text.as_bytes();
    if bytes.len() <= 2 * HASHED_BYTES {
        return stable_hash(hash, bytes);
    }
    let hash = stable_hash(hash, &bytes.len().to_le_bytes());
    stable_hash(stable_hash(hash, &bytes[..HASHED_BYTES]), &bytes[bytes.len() - HASHED_BYTES..])
}

/// Whether `value` is a block of Converse that only marks the end of a cached prefix.
fn is_cache_point(value: &Value) -> bool {
    value.get("cachePoint").is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn conversation(body: Value) -> Option<u64> {
        match body {
            Value::Object(body) => Input::Converse(body).conversation(),
            _ => None,
        }
    }

    #[test]
    fn all_requests_of_a_conversation_have_the_same_hash() {
        let user = |content: Value| json!({ "role": "user", "content": content });
        let point = json!({ "cachePoint": { "type": "default" } });
        let first = json!({ "system": [{ "text": "s" }], "messages": [user(json!([{ "text": "a" }, point]))] });
        let assistant = json!({ "role": "assistant", "content": [{ "text": "b" }] });
        let next = json!({
            "system": [{ "text": "s" }, point],
            "messages": [user(json!([{ "text": "a" }])), assistant, user(json!([{ "text": "c" }, point]))],
            "inferenceConfig": { "maxTokens": 9 },
        });
        assert_eq!(conversation(first.clone()), conversation(next));
        assert!(conversation(first.clone()).is_some());
        let mut marked = json!({ "messages": [user(json!([{ "type": "text", "text": "a" }]))] });
        let plain = conversation(marked.clone());
        marked["messages"][0]["content"][0]["cache_control"] = json!({ "type": "ephemeral" });
        assert_eq!(conversation(marked), plain);
        for (pointer, value) in [("/system/0/text", "t"), ("/messages/0/content/0/text", "b")] {
            let mut changed = first.clone();
            *changed.pointer_mut(pointer).expect("a place") = json!(value);
            assert_ne!(conversation(changed), conversation(first.clone()), "{pointer}");
        }
        assert_eq!(conversation(json!({ "prompt": "a" })), None);
    }

    #[test]
    fn long_texts_differ_at_their_ends_or_in_their_length() {
        let of = |text: String| conversation(json!({ "messages": [{ "role": "user", "content": text }] }));
        let long = "a".repeat(100_000);
        assert_ne!(of(long.clone()), of(long.clone() + "a"));
        assert_ne!(of(long.clone() + "b"), of(long.clone() + "c"));
        assert_ne!(of("b".to_owned() + &long), of("c".to_owned() + &long));
    }
}
