//! Error messages with their causes. The AWS SDK's errors are not informative without them.

use std::error::Error;

/// Returns the error and all its causes in one line, separated by colons.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}
