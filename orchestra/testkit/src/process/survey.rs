//! Which processes of this machine carry a mark.

use std::io;
use std::path::Path;

/// How many live processes, other than this one, carry `marker` in their environment or command line.
///
/// A test gives all that it starts, at whatever depth, an environment variable with a unique value, and
/// so proves at its end that nothing was left behind. A frozen process is alive; one that has ended and
/// was not reaped is not. Reads `/proc`, so it works on Linux alone, and sees the processes that this
/// user may look into.
pub fn count_matching(marker: &str) -> io::Result<usize> {
    find_matching(marker).map(|found| found.len())
}

/// The ids of the processes that [`count_matching`] counts, in ascending order.
pub fn find_matching(marker: &str) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|id| id.parse().ok()) else {
            continue;
        };
        if pid != std::process::id() && carries(&entry.path(), marker.as_bytes()) {
            found.push(pid);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The kernel shows neither file's content for a process that has ended.
fn carries(process: &Path, marker: &[u8]) -> bool {
    ["environ", "cmdline"].iter().any(|file| {
        std::fs::read(process.join(file)).is_ok_and(|content| contains(&content, marker))
    })
}

fn contains(content: &[u8], marker: &[u8]) -> bool {
    !marker.is_empty() && content.windows(marker.len()).any(|window| window == marker)
}
