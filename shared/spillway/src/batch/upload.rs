//! Uploads: files that arrive in parts (OpenAI API reference, "Uploads").

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{File, MAX_FILE_BYTES, ResourceKind};
use crate::{
    problem::{Kind, Problem},
    units::{Millis, UnixMs},
};

/// Maximum of parts in a file. With the largest file, a part has 256 KiB on average.
pub const MAX_PARTS: usize = 256;

/// Time after which an upload accepts no parts, as in OpenAI's API.
pub const MAX_UPLOAD_TIME: Millis = Millis::from_s(60 * 60);

/// What the id of a part starts with.
const PART_PREFIX: &str = "part_";

/// Name of the object with the whole content.
const WHOLE: &str = "whole";

/// Status of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UploadStatus {
    /// It accepts parts.
    Pending,
    /// Its parts have become a file.
    Completed,
    /// The tenant cancelled it.
    Cancelled,
    /// It was not completed in time. Never stored.
    Expired,
}

/// An upload without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// `upload_<uuid>`.
    pub id: String,
    /// Name of the tenant.
    pub tenant: String,
    /// Purpose of the file: `batch`.
    pub purpose: String,
    /// Name of the file.
    pub name: String,
    /// Size of the file in bytes, as announced.
    pub bytes: u64,
    /// How long the file is kept from now on, in seconds.
    pub retention_s: u64,
    /// Time when the upload was created.
    #[serde(rename = "created_ms")]
    pub created_at: UnixMs,
    /// Time after which the upload accepts no parts.
    #[serde(rename = "expires_ms")]
    pub expires_at: UnixMs,
    /// Status of the upload when it was last changed.
    pub status: UploadStatus,
    /// Time when the upload was completed.
    #[serde(rename = "completed_ms")]
    pub completed_at: Option<UnixMs>,
    /// Ids of the parts of the file, in order, once the upload is completed. None if the content
    /// was sent as a whole.
    pub parts: Vec<String>,
    /// Changes with every write, so that a write applies only to the version that was read.
    pub etag: String,
}

impl Upload {
    /// Returns the status at `now`.
    pub fn status_at(&self, now: UnixMs) -> UploadStatus {
        match self.status {
            UploadStatus::Pending if now >= self.expires_at => UploadStatus::Expired,
            status => status,
        }
    }

    /// Checks that the upload accepts parts at `now`.
    ///
    /// # Errors
    /// Returns an error if it is completed, cancelled or expired.
    pub fn check_open(&self, now: UnixMs) -> Result<(), Problem> {
        let state = match self.status_at(now) {
            UploadStatus::Pending => return Ok(()),
            UploadStatus::Completed => "is completed",
            UploadStatus::Cancelled => "was cancelled",
            UploadStatus::Expired => "has expired",
        };
        let message = format!("The upload {state}, so it cannot be changed. Create a new upload.");
        Err(Problem { param: Some("upload_id".to_owned()), ..Problem::new(Kind::Invalid, message) })
    }

    /// Returns the upload when these parts have become its file. A repeated request with the same
    /// parts changes nothing, because its first answer may be lost.
    ///
    /// # Errors
    /// Returns an error if the upload is cancelled, expired, or completed with other parts.
    pub fn completed(&self, parts: &[String], now: UnixMs) -> Result<Self, Problem> {
        if self.status == UploadStatus::Completed && self.parts == parts {
            return Ok(self.clone());
        }
        self.check_open(now)?;
        let (status, completed_at) = (UploadStatus::Completed, Some(now));
        Ok(Self { status, completed_at, parts: parts.to_vec(), ..self.clone() })
    }

    /// Returns the upload when it is cancelled. A cancelled upload stays unchanged.
    ///
    /// # Errors
    /// Returns an error if the upload is completed or expired.
    pub fn cancelled(&self, now: UnixMs) -> Result<Self, Problem> {
        if self.status != UploadStatus::Cancelled {
            self.check_open(now)?;
        }
        Ok(Self { status: UploadStatus::Cancelled, ..self.clone() })
    }

    /// Returns the file of a completed upload. It has the UUID of the upload, so that each upload
    /// becomes one file.
    pub fn file(&self) -> Option<File> {
        let created_at = self.completed_at?;
        let objects = match &self.parts[..] {
            [] => vec![self.whole_key()],
            parts => parts.iter().map(|part| self.part_key(part)).collect(),
        };
        Some(File {
            id: self.id.replacen(ResourceKind::Upload.prefix(), ResourceKind::File.prefix(), 1),
            tenant: self.tenant.clone(),
            purpose: self.purpose.clone(),
            name: self.name.clone(),
            bytes: self.bytes,
            created_at,
            expires_at: created_at + Millis::from_s(self.retention_s),
            objects,
        })
    }

    /// Key of the object with the whole content.
    pub fn whole_key(&self) -> String {
        self.part_key(WHOLE)
    }

    /// Key of the object with the content of a part.
    pub fn part_key(&self, part_id: &str) -> String {
        format!("{}/{}/{part_id}", self.tenant, self.id)
    }
}

/// Checks the size of a file that a caller announces. Returns it in bytes.
///
/// # Errors
/// Returns an error if it is not a whole number from 1 to the maximum of a file.
pub fn check_bytes(bytes: Option<u64>) -> Result<u64, Problem> {
    let fits = |bytes: &u64| (1..=u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX)).contains(bytes);
    let message = || format!("The bytes must be a whole number from 1 to {MAX_FILE_BYTES}.");
    bytes.filter(fits).ok_or_else(|| Problem::invalid("bytes", message()))
}

/// Returns the id of a part with this UUID.
pub fn part_id(uuid: Uuid) -> String {
    format!("{PART_PREFIX}{}", uuid.simple())
}

/// Whether `id` has the format of [`part_id`], so that it cannot name another object.
pub fn is_part_id(id: &str) -> bool {
    id.strip_prefix(PART_PREFIX).is_some_and(super::ids::is_plain_uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs::from_ms(1_000_000);

    fn upload() -> Upload {
        Upload {
            id: ResourceKind::Upload.id(Uuid::from_u128(7)),
            tenant: "t".to_owned(),
            purpose: "batch".to_owned(),
            name: "a.jsonl".to_owned(),
            bytes: 3,
            retention_s: 3_600,
            created_at: NOW,
            expires_at: NOW + MAX_UPLOAD_TIME,
            status: UploadStatus::Pending,
            completed_at: None,
            parts: Vec::new(),
            etag: String::new(),
        }
    }

    fn parts(count: u128) -> Vec<String> {
        (0..count).map(|uuid| part_id(Uuid::from_u128(uuid))).collect()
    }

    #[test]
    fn only_a_pending_upload_accepts_parts() {
        let (pending, late) = (upload(), NOW + MAX_UPLOAD_TIME);
        assert_eq!(pending.check_open(NOW), Ok(()));
        let completed = pending.completed(&parts(1), NOW).expect("completed");
        let cancelled = pending.cancelled(NOW).expect("cancelled");
        for (upload, now, state) in
            [(&pending, late, "has expired"), (&completed, NOW, "is completed"), (&cancelled, NOW, "was cancelled")]
        {
            let problem = upload.check_open(now).expect_err(state);
            assert!(problem.kind == Kind::Invalid && problem.message.contains(state), "{problem}");
            assert_eq!(upload.completed(&parts(2), now), Err(problem));
        }
        assert_eq!(completed.status_at(late), UploadStatus::Completed);
        assert_eq!(pending.status_at(late), UploadStatus::Expired);
    }

    #[test]
    fn a_repeated_change_changes_nothing() {
        let late = NOW + MAX_UPLOAD_TIME;
        let completed = upload().completed(&parts(2), NOW).expect("completed");
        assert_eq!(completed.completed(&parts(2), late), Ok(completed.clone()));
        let cancelled = upload().cancelled(NOW).expect("cancelled");
        assert_eq!(cancelled.cancelled(late), Ok(cancelled.clone()));
        assert!(completed.cancelled(NOW).is_err() && upload().cancelled(late).is_err());
    }

    #[test]
    fn a_file_consists_of_its_parts_in_order_or_of_one_object() {
        assert_eq!(upload().file(), None);
        let completed = |parts: &[String]| upload().completed(parts, NOW).expect("completed").file().expect("a file");
        let (whole, [first, second]) = (completed(&[]), [0, 1].map(|at| parts(2)[at].clone()));
        let prefix = "t/upload_00000000000000000000000000000007";
        assert_eq!(whole.keys(), [format!("{prefix}/whole")]);
        let file = completed(&[second.clone(), first.clone()]);
        assert_eq!(file.keys(), [format!("{prefix}/{second}"), format!("{prefix}/{first}")]);
        assert_eq!(ResourceKind::from_id(&file.id), Some(ResourceKind::File));
        assert_eq!((file.id, file.bytes, file.expires_at), (whole.id, 3, NOW + Millis::from_s(3_600)));
    }

    #[test]
    fn only_the_id_of_a_part_names_a_part() {
        assert!(is_part_id(&parts(1)[0]));
        for id in ["whole", "", "part_", "part_../x", "part_0000000000000000000000000000000g"] {
            assert!(!is_part_id(id), "{id}");
        }
    }

    #[test]
    fn a_file_has_content_and_a_maximum() {
        let max = u64::try_from(MAX_FILE_BYTES).expect("it fits");
        for bytes in [None, Some(0), Some(max + 1)] {
            assert_eq!(check_bytes(bytes).map_err(|problem| problem.param), Err(Some("bytes".to_owned())));
        }
        assert_eq!((check_bytes(Some(1)), check_bytes(Some(max))), (Ok(1), Ok(max)));
    }
}
