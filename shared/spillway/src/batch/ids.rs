//! Ids of batches and files, and ids that are derived from others.

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// A kind of resource that is listed for a tenant besides jobs. The prefix of an id names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResourceKind {
    /// A batch of OpenAI's API.
    Batch,
    /// A batch of Anthropic's API.
    MessageBatch,
    /// A file of OpenAI's API.
    File,
    /// An upload of OpenAI's API, which becomes a file.
    Upload,
}

impl ResourceKind {
    const ALL: [Self; 4] = [Self::Batch, Self::MessageBatch, Self::File, Self::Upload];

    /// What the ids of this kind start with.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Batch => "batch_",
            Self::MessageBatch => "msgbatch_",
            Self::File => "file-",
            Self::Upload => "upload_",
        }
    }

    /// Name in the index of a tenant's resources.
    pub fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::MessageBatch => "msgbatch",
            Self::File => "file",
            Self::Upload => "upload",
        }
    }

    /// Returns the id of this kind with this UUID.
    pub fn id(self, uuid: Uuid) -> String {
        format!("{}{}", self.prefix(), uuid.simple())
    }

    /// Returns the kind of the resource that `id` names. Ids come from callers, so only the exact
    /// format of [`id`](Self::id) names a resource.
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| id.strip_prefix(kind.prefix()).is_some_and(is_plain_uuid))
    }
}

/// Whether `text` is a UUID without hyphens, in lower case.
pub(super) fn is_plain_uuid(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether `id` names a batch.
pub fn is_batch_id(id: &str) -> bool {
    matches!(ResourceKind::from_id(id), Some(ResourceKind::Batch | ResourceKind::MessageBatch))
}

/// Derives a UUID (version 8, RFC 9562) from `parts`. Equal parts give equal UUIDs, different parts
/// different ones.
pub fn derive_uuid(parts: &[&[u8]]) -> Uuid {
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
    fn an_id_names_the_kind_of_its_resource() {
        for kind in ResourceKind::ALL {
            let id = kind.id(derive_uuid(&[b"a"]));
            assert_eq!(ResourceKind::from_id(&id), Some(kind));
            assert_eq!(is_batch_id(&id), matches!(kind, ResourceKind::Batch | ResourceKind::MessageBatch));
            assert_eq!(ResourceKind::from_id(&format!("{id}#count0")), None, "an id cannot name another row");
            assert_eq!(ResourceKind::from_id(&id.to_uppercase()), None);
        }
        assert_ne!(derive_uuid(&[b"a", b"b"]), derive_uuid(&[b"ab", b""]), "parts are kept apart");
    }

    proptest! {
        #[test]
        fn any_text_is_an_id_or_none(text in "\\PC{0,50}") {
            let _ = (ResourceKind::from_id(&text), ResourceKind::from_id(&format!("batch_{text}")));
        }
    }
}
