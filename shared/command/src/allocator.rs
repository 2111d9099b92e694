//! Settings of glibc's allocator, which reads them only when a program starts.

use std::{env, os::unix::process::CommandExt, process::Command};

/// Settings that give memory back when a large request has been answered. By default, glibc raises
/// the size from which on a block is given back at once, up to 32 MiB. It also keeps the small
/// blocks of each thread apart, in up to eight arenas per CPU: a request that moves between the
/// threads leaves free blocks in each. In one arena, the next request finds them.
const SETTINGS: [(&str, &str); 2] = [("MALLOC_MMAP_THRESHOLD_", "131072"), ("MALLOC_ARENA_MAX", "1")];

/// Starts this program again with the settings, unless the environment has some of them. It stays
/// the same process.
pub fn configure() {
    let Ok(program) = env::current_exe() else { return };
    if SETTINGS.iter().all(|(name, _)| env::var_os(name).is_none()) {
        let error = Command::new(program).args(env::args_os().skip(1)).envs(SETTINGS).exec();
        // Without the settings the broker works as well, but takes more memory.
        eprintln!("the program could not be started again with settings of the allocator: {error}");
    }
}
