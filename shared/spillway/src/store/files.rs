//! The files of tenants, without their content: rows of the jobs table that are written once.

use aws_sdk_dynamodb::Client;

use super::{
    StoreError,
    documents::{Documents, Head, Wanted},
};
use crate::batch::{File, Kind};

/// How many files are looked at together.
const AT_ONCE: usize = 100;

/// The files in the jobs table.
#[derive(Clone)]
pub struct Files {
    documents: Documents,
}

impl Files {
    /// The files in `table`.
    pub fn new(client: Client, table: &str) -> Self {
        Self { documents: Documents::new(client, table) }
    }

    /// Notes a file; one of the same id is the same file.
    pub async fn create(&self, file: &File) -> Result<(), StoreError> {
        let head = Head {
            id: &file.id,
            tenant: &file.tenant,
            kind: Kind::File,
            created_ms: file.created_ms,
            etag: "",
            due_ms: None,
            expires_s: file.expires_ms / 1_000,
        };
        self.documents.create(&head, file).await.map(drop)
    }

    /// The file of this id, whoever owns it, unless its time is over.
    pub async fn get(&self, id: &str, now_ms: u64) -> Result<Option<File>, StoreError> {
        if Kind::of(id) != Some(Kind::File) {
            return Ok(None);
        }
        // DynamoDB takes its time to delete what has expired.
        Ok(self.documents.get::<File>(id).await?.filter(|file| now_ms < file.expires_ms))
    }

    /// The files of a tenant, those of `purpose` if one is named.
    pub async fn list(
        &self,
        tenant: &str,
        wanted: &Wanted<'_>,
        purpose: Option<&str>,
        now_ms: u64,
    ) -> Result<Vec<File>, StoreError> {
        let mut files: Vec<File> = Vec::new();
        let mut after = wanted.after.map(|(id, created_ms)| (id.to_owned(), created_ms));
        loop {
            let place = after.as_ref().map(|(id, created_ms)| (id.as_str(), *created_ms));
            let page = Wanted { after: place, limit: AT_ONCE, ..*wanted };
            let found: Vec<File> = self.documents.list(tenant, Kind::File, &page).await?;
            let Some(last) = found.last() else { return Ok(files) };
            after = Some((last.id.clone(), last.created_ms));
            let is_wanted = |file: &File| now_ms < file.expires_ms && purpose.is_none_or(|of| file.purpose == of);
            files.extend(found.into_iter().filter(is_wanted));
            if files.len() >= wanted.limit {
                files.truncate(wanted.limit);
                return Ok(files);
            }
        }
    }

    /// Forgets a file.
    pub async fn delete(&self, file: &File) -> Result<(), StoreError> {
        self.documents.delete(&file.id).await
    }
}
