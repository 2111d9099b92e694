//! A setting of glibc's allocator, which reads it only when a program starts.

use std::{env, os::unix::process::CommandExt, process::Command};

/// The size from which on a block of memory goes back to the system as soon as it is freed. Without
/// it, glibc raises that size to the largest block so far, up to 32 MiB, and bodies that have long
/// been answered stay in memory.
const MMAP_THRESHOLD: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "131072");

/// Starts this program again with the setting, unless the environment has it. It stays the same
/// process.
pub fn configure() {
    let (name, value) = MMAP_THRESHOLD;
    let Ok(program) = env::current_exe() else { return };
    if env::var_os(name).is_none() {
        let error = Command::new(program).args(env::args_os().skip(1)).env(name, value).exec();
        // Without the setting the broker works as well, but takes more memory.
        eprintln!("the program could not be started again with {name}={value}: {error}");
    }
}
