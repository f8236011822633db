//! What `/proc` says of processes; see `proc(5)`.

use std::fs;
use std::path::Path;

/// What identifies a process and what group it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// Its process group.
    pub(super) group: u32,
    /// When it started, in clock ticks since boot (field 22).
    pub(super) started: u64,
    /// Whether it runs, sleeps or is stopped, rather than waits to be reaped.
    pub(super) is_alive: bool,
}

impl Stat {
    /// `None` if there is no such process.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Option<Self> {
        // The name, in parentheses, may hold anything, parentheses and spaces too.
        let (_, fields) = text.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        let state = fields.next()?;
        let group = fields.nth(1)?.parse().ok()?;
        let started = fields.nth(16)?.parse().ok()?;
        Some(Self {
            group,
            started,
            is_alive: !matches!(state, "Z" | "X" | "x"),
        })
    }
}

/// This boot of the machine.
pub(super) fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

/// Every process.
pub(super) fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether a process of this group is alive.
pub(super) fn has_living_member(group: u32) -> bool {
    processes()
        .filter_map(Stat::of)
        .any(|stat| stat.is_alive && stat.group == group)
}

/// Whether one of the standard streams of a process is one of these pipes.
pub(super) fn holds_pipe(pid: u32, pipes: &[u64]) -> bool {
    (0..3).any(|stream| {
        let link = fs::read_link(format!("/proc/{pid}/fd/{stream}"));
        link.ok()
            .and_then(|target| pipe_number(&target))
            .is_some_and(|pipe| pipes.contains(&pipe))
    })
}

fn pipe_number(target: &Path) -> Option<u64> {
    let text = target.to_str()?.strip_prefix("pipe:[")?;
    text.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) S (b) T 1 77 77 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 2 3";
        let stat = Stat::parse(text);
        assert_eq!(
            stat,
            Some(Stat {
                group: 77,
                started: 987_654,
                is_alive: true
            })
        );
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let text = "42 (x) Z 1 77 77 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 5 2 3";
        assert_eq!(Stat::parse(text).map(|stat| stat.is_alive), Some(false));
    }

    #[test]
    fn garbage_is_no_process() {
        assert_eq!(Stat::parse(""), None);
        assert_eq!(Stat::parse("1 (x) S 1"), None);
    }
}
