//! Deletes old objects, as a lifecycle rule of the bucket does on AWS. `s3s-fs` has no lifecycle
//! rules.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Age at which an object is deleted. It exceeds the maximum that a caller can request: 30 days for
/// a file.
const MAX_AGE: Duration = Duration::from_secs(31 * 24 * 60 * 60);

/// Interval between sweeps. On AWS, an expired object can remain for a day.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Deletes old objects below `root` at intervals.
pub(super) async fn sweep_forever(root: PathBuf) {
    loop {
        let directory = root.clone();
        let oldest = SystemTime::now().checked_sub(MAX_AGE).unwrap_or(SystemTime::UNIX_EPOCH);
        match tokio::task::spawn_blocking(move || sweep(&directory, oldest)).await {
            Ok(Ok(deleted)) => tracing::debug!(deleted, "swept expired objects"),
            Ok(Err(error)) => tracing::warn!(%error, "failed to sweep expired objects"),
            Err(error) => tracing::warn!(%error, "sweep of expired objects panicked"),
        }
        tokio::time::sleep(SWEEP_INTERVAL).await;
    }
}

/// Deletes the files below `directory` that were last written before `oldest`, including the
/// metadata files of `s3s-fs`. Returns their number. Directories stay, because a client may be
/// writing an object into one.
fn sweep(directory: &Path, oldest: SystemTime) -> io::Result<u64> {
    let mut deleted = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // A client may delete or replace the file at the same time.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            deleted += sweep(&entry.path(), oldest)?;
        } else if metadata.modified()? < oldest && fs::remove_file(entry.path()).is_ok() {
            deleted += 1;
        }
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_objects_are_deleted() {
        let root = tempfile::tempdir().unwrap();
        let object = |name: &str| root.path().join("bucket/tenant/id").join(name);
        fs::create_dir_all(object("")).unwrap();
        fs::write(object("request"), "old").unwrap();
        fs::write(object("1"), "new").unwrap();
        let now = SystemTime::now();
        fs::File::options().write(true).open(object("request")).unwrap().set_modified(now - MAX_AGE).unwrap();
        assert_eq!(sweep(root.path(), now - MAX_AGE + Duration::from_secs(1)).unwrap(), 1);
        assert!(!object("request").exists());
        assert!(object("1").exists());
        assert_eq!(sweep(root.path(), now - MAX_AGE).unwrap(), 0);
    }
}
