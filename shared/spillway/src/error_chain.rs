//! An error and all that caused it, in one line: the AWS SDK's errors say little themselves.

use std::error::Error;

/// `error: its cause: the cause's cause`.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}
