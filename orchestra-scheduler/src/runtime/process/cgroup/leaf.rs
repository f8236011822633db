use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Version;
use crate::resources::Limits;

/// The period over which CPU time is counted, in microseconds: the kernel's default.
const PERIOD: u64 = 100_000;
/// The smallest quota that the kernel takes, in microseconds.
const LEAST_QUOTA: u64 = 1_000;

/// The cgroups of one child: one directory, or one for each hierarchy. Nobody else uses them.
#[derive(Debug, Clone)]
pub(in super::super) struct Leaf {
    version: Version,
    cpu: Option<PathBuf>,
    memory: Option<PathBuf>,
}

impl Leaf {
    pub(super) fn planned(version: Version, cpu: Option<PathBuf>, memory: Option<PathBuf>) -> Self {
        Self {
            version,
            cpu,
            memory,
        }
    }

    /// No cgroups.
    pub(in super::super) fn none() -> Self {
        Self::planned(Version::One, None, None)
    }

    /// The cgroups that a record names, at most two, to be emptied and removed.
    pub(in super::super) fn existing(paths: Vec<PathBuf>) -> Self {
        let mut paths = paths.into_iter();
        Self::planned(Version::One, paths.next(), paths.next())
    }

    /// The directories.
    pub(in super::super) fn paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> = self.cpu.iter().chain(&self.memory).cloned().collect();
        paths.dedup();
        paths
    }

    /// Makes the cgroups, sets the limits and moves a process in.
    pub(in super::super) fn enclose(&self, limits: &Limits, pid: u32) -> io::Result<()> {
        for path in self.paths() {
            fs::create_dir(&path)?;
        }
        if let (Some(path), Some(cpu)) = (&self.cpu, limits.cpu) {
            self.limit_cpu(path, cpu.0)?;
        }
        if let (Some(path), Some(memory)) = (&self.memory, limits.memory) {
            self.limit_memory(path, memory.0)?;
        }
        for path in self.paths() {
            fs::write(path.join("cgroup.procs"), pid.to_string())?;
        }
        Ok(())
    }

    fn limit_cpu(&self, path: &Path, millicores: u64) -> io::Result<()> {
        let quota = millicores.saturating_mul(PERIOD / 1_000).max(LEAST_QUOTA);
        match self.version {
            Version::One => {
                fs::write(path.join("cpu.cfs_period_us"), PERIOD.to_string())?;
                fs::write(path.join("cpu.cfs_quota_us"), quota.to_string())
            }
            Version::Two => fs::write(path.join("cpu.max"), format!("{quota} {PERIOD}")),
        }
    }

    fn limit_memory(&self, path: &Path, bytes: u64) -> io::Result<()> {
        match self.version {
            Version::One => {
                fs::write(path.join("memory.limit_in_bytes"), bytes.to_string())?;
                // Memory and swap together; the file is there if the kernel accounts for swap.
                write_if_there(
                    &path.join("memory.memsw.limit_in_bytes"),
                    &bytes.to_string(),
                )
            }
            Version::Two => {
                fs::write(path.join("memory.max"), bytes.to_string())?;
                write_if_there(&path.join("memory.swap.max"), "0")?;
                write_if_there(&path.join("memory.oom.group"), "1")
            }
        }
    }

    /// How many processes the kernel killed for want of memory.
    pub(in super::super) fn out_of_memory_kills(&self) -> u64 {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let path = self.memory.as_ref().map(|path| path.join(file));
        let text = path.and_then(|path| fs::read_to_string(path).ok());
        let text = text.unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count
            .and_then(|count| count.trim().parse().ok())
            .unwrap_or(0)
    }

    /// The processes inside, those too that left the child's process group.
    pub(in super::super) fn processes(&self) -> Vec<u32> {
        let text = |path: PathBuf| fs::read_to_string(path.join("cgroup.procs")).ok();
        let texts = self.paths().into_iter().filter_map(text);
        texts
            .flat_map(|text| {
                text.lines()
                    .filter_map(|line| line.parse().ok())
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// Removes the cgroups if they are empty; whether none is left.
    pub(in super::super) fn remove(&self) -> bool {
        let is_gone = |path: &PathBuf| match fs::remove_dir(path) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        // Every one is tried, whatever becomes of the others.
        self.paths().iter().filter(|path| !is_gone(path)).count() == 0
    }
}

fn write_if_there(path: &Path, text: &str) -> io::Result<()> {
    match fs::write(path, text) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the files of a cgroup are told, seen in a plain directory.
    fn told(version: Version, limits: Limits) -> Vec<(String, String)> {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("leaf");
        let leaf = Leaf::planned(version, Some(place.clone()), Some(place.clone()));
        leaf.enclose(&limits, 42).unwrap();
        let files = fs::read_dir(place).unwrap().flatten();
        let mut told: Vec<_> = files
            .map(|file| {
                let name = file.file_name().into_string().unwrap();
                (name, fs::read_to_string(file.path()).unwrap())
            })
            .collect();
        told.sort();
        told
    }

    fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
        pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).into()
    }

    #[test]
    fn version_two_is_told_in_its_own_words() {
        let limits = Limits::new().cpu(250).memory(crate::Bytes(4_096));
        let expected = pairs([
            ("cgroup.procs", "42"),
            ("cpu.max", "25000 100000"),
            ("memory.max", "4096"),
            ("memory.oom.group", "1"),
            ("memory.swap.max", "0"),
        ]);
        assert_eq!(told(Version::Two, limits), expected);
    }

    #[test]
    fn version_one_is_told_in_its_own_words_and_never_less_than_the_least_quota() {
        let limits = Limits::new().cpu(1).memory(crate::Bytes(4_096));
        let expected = pairs([
            ("cgroup.procs", "42"),
            ("cpu.cfs_period_us", "100000"),
            ("cpu.cfs_quota_us", "1000"),
            ("memory.limit_in_bytes", "4096"),
            ("memory.memsw.limit_in_bytes", "4096"),
        ]);
        assert_eq!(told(Version::One, limits), expected);
    }
}
