//! Names: of batches, of files, and what follows from them.

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// What is listed for a tenant beside its jobs, by how its ids begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A batch of OpenAI's API.
    Batch,
    /// A batch of Anthropic's API.
    MessageBatch,
    /// A file of OpenAI's API.
    File,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Batch, Self::MessageBatch, Self::File];

    fn prefix(self) -> &'static str {
        match self {
            Self::Batch => "batch_",
            Self::MessageBatch => "msgbatch_",
            Self::File => "file-",
        }
    }

    /// Its name in the index of what tenants have.
    pub fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::MessageBatch => "msgbatch",
            Self::File => "file",
        }
    }

    /// The id that `uuid` makes.
    pub fn id(self, uuid: Uuid) -> String {
        format!("{}{}", self.prefix(), uuid.simple())
    }

    /// What `id` names. Names in the API are not trusted: only what [`id`](Self::id) makes names anything.
    pub fn of(id: &str) -> Option<Self> {
        let is_rest = |rest: &str| rest.len() == 32 && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        Self::ALL.into_iter().find(|kind| id.strip_prefix(kind.prefix()).is_some_and(is_rest))
    }
}

/// Whether `id` names a batch.
pub fn is_batch_id(id: &str) -> bool {
    matches!(Kind::of(id), Some(Kind::Batch | Kind::MessageBatch))
}

/// The UUID that follows from `parts`: the same for the same parts, and for no others (version 8, RFC 9562).
pub fn derived(parts: &[&[u8]]) -> Uuid {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.len().to_be_bytes());
        digest.update(part);
    }
    let digest: [u8; 32] = digest.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_tells_what_it_names() {
        for kind in Kind::ALL {
            let id = kind.id(derived(&[b"a"]));
            assert_eq!(Kind::of(&id), Some(kind));
            assert_eq!(is_batch_id(&id), kind != Kind::File);
            assert_eq!(Kind::of(&format!("{id}#count0")), None, "no id leads to another row");
            assert_eq!(Kind::of(&id.to_uppercase()), None);
        }
        assert_ne!(derived(&[b"a", b"b"]), derived(&[b"ab", b""]), "parts are not run together");
    }

    proptest! {
        #[test]
        fn any_text_is_an_id_or_none(text in "\\PC{0,50}") {
            let _ = (Kind::of(&text), Kind::of(&format!("batch_{text}")));
        }
    }
}
