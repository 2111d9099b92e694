//! Files of tenants, without their content: rows of the jobs table that are written once.

use aws_sdk_dynamodb::Client;

use super::{
    StoreError,
    documents::{DocumentAttributes, DocumentQuery, Documents},
};
use crate::{
    batch::{File, ResourceKind},
    units::UnixMs,
};

/// Number of files in one read.
const PAGE_FILES: usize = 100;

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

    /// Stores a file. A file with the same id is the same file.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn create(&self, file: &File) -> Result<(), StoreError> {
        let attributes = DocumentAttributes {
            id: file.id.clone(),
            tenant: file.tenant.clone(),
            kind: ResourceKind::File,
            created_at: file.created_at,
            etag: String::new(),
            due_at: None,
            expires_s: file.expires_at.as_s(),
        };
        self.documents.create(&attributes, file.clone()).await.map(drop)
    }

    /// Returns the file with this id, of any tenant, unless it has expired.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn get(&self, id: &str, now: UnixMs) -> Result<Option<File>, StoreError> {
        if ResourceKind::from_id(id) != Some(ResourceKind::File) {
            return Ok(None);
        }
        // DynamoDB deletes expired rows late.
        Ok(self.documents.get::<File>(id).await?.filter(|file| now < file.expires_at))
    }

    /// Lists the files of a tenant, or only its files of `purpose`.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn list(
        &self,
        tenant: &str,
        query: &DocumentQuery<'_>,
        purpose: Option<&str>,
        now: UnixMs,
    ) -> Result<Vec<File>, StoreError> {
        let mut files: Vec<File> = Vec::new();
        let mut last_read = query.after.map(|(id, created_at)| (id.to_owned(), created_at));
        loop {
            let after = last_read.as_ref().map(|(id, created_at)| (id.as_str(), *created_at));
            let page = DocumentQuery { after, limit: PAGE_FILES, ..*query };
            let found: Vec<File> = self.documents.list(tenant, ResourceKind::File, &page).await?;
            let Some(last) = found.last() else { return Ok(files) };
            last_read = Some((last.id.clone(), last.created_at));
            let matches = |file: &File| now < file.expires_at && purpose.is_none_or(|purpose| file.purpose == purpose);
            files.extend(found.into_iter().filter(matches));
            if files.len() >= query.limit {
                files.truncate(query.limit);
                return Ok(files);
            }
        }
    }

    /// Deletes a file.
    ///
    /// # Errors
    /// Returns an error if the store is unavailable.
    pub async fn delete(&self, file: &File) -> Result<(), StoreError> {
        self.documents.delete(&file.id).await
    }
}
