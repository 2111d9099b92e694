//! What a bucket's lifecycle rule does on AWS: objects are deleted when they are too old. There is no such rule to set in
//! `s3s-fs`, so the stand-in has one of its own.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// How old an object becomes: somewhat more than anybody can ask for, which is 30 days for a file.
const KEPT: Duration = Duration::from_secs(31 * 24 * 60 * 60);

/// On AWS a day may pass before an object that is too old is gone.
const SWEEP_EVERY: Duration = Duration::from_secs(60 * 60);

/// Deletes what is too old below `root`, now and then.
pub(super) async fn sweep_forever(root: PathBuf) {
    loop {
        let swept = root.clone();
        let oldest = SystemTime::now().checked_sub(KEPT).unwrap_or(SystemTime::UNIX_EPOCH);
        match tokio::task::spawn_blocking(move || sweep(&swept, oldest)).await {
            Ok(Ok(deleted)) => tracing::debug!(deleted, "swept expired objects"),
            Ok(Err(error)) => tracing::warn!(%error, "cannot sweep expired objects"),
            Err(error) => tracing::warn!(%error, "the sweep of expired objects died"),
        }
        tokio::time::sleep(SWEEP_EVERY).await;
    }
}

/// Deletes the files below `directory` that were last written before `oldest`, what `s3s-fs` notes about objects included;
/// gives their number. Directories stay, because an object may be on its way into one.
fn sweep(directory: &Path, oldest: SystemTime) -> io::Result<u64> {
    let mut deleted = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // A file may be deleted or replaced by a client meanwhile.
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
    fn what_is_too_old_is_deleted_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let object = |name: &str| root.path().join("bucket/tenant/id").join(name);
        fs::create_dir_all(object("")).unwrap();
        fs::write(object("request"), "old").unwrap();
        fs::write(object("1"), "new").unwrap();
        let now = SystemTime::now();
        fs::File::options().write(true).open(object("request")).unwrap().set_modified(now - KEPT).unwrap();
        assert_eq!(sweep(root.path(), now - KEPT + Duration::from_secs(1)).unwrap(), 1);
        assert!(!object("request").exists());
        assert!(object("1").exists());
        assert_eq!(sweep(root.path(), now - KEPT).unwrap(), 0);
    }
}
