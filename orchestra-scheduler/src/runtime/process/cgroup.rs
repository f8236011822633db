//! CPU and memory limits through control groups, of either version, found at run time.
//!
//! Version 2 is used where `cpu` and `memory` can be enabled below our own cgroup; otherwise the `cpu` and
//! `memory` hierarchies of version 1, each if it is mounted and writable. Kernel documentation:
//! `admin-guide/cgroup-v2.rst`, `admin-guide/cgroup-v1/memory.rst`, `scheduler/sched-bwc.rst`.

mod leaf;
mod mount;

pub(super) use leaf::Leaf;

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::resources::Limits;
use crate::runtime::Enforcement;
use mount::Hierarchies;

/// The version that speaks through a cgroup's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Where cgroups are made.
#[derive(Debug, Clone)]
pub(super) struct Cgroups {
    version: Version,
    cpu: Option<PathBuf>,
    memory: Option<PathBuf>,
}

impl Cgroups {
    /// Finds a usable version, or says why there is none.
    pub(super) fn find(parent: Option<&Path>) -> Result<Self, String> {
        let hierarchies = Hierarchies::of_this_process(parent);
        let two = Self::version_two(&hierarchies);
        let one = || Self::version_one(&hierarchies);
        two.or_else(|two| one().map_err(|one| format!("cgroups v2: {two}; cgroups v1: {one}")))
    }

    fn version_two(hierarchies: &Hierarchies) -> Result<Self, String> {
        let parent = hierarchies.unified().ok_or("not mounted")?;
        let offered = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
        let offers = |name| offered.split_ascii_whitespace().any(|offer| offer == name);
        if !offers("cpu") || !offers("memory") {
            return Err("cpu and memory controllers are not available".to_owned());
        }
        fs::write(parent.join("cgroup.subtree_control"), "+cpu +memory")
            .map_err(|error| format!("controllers cannot be delegated: {error}"))?;
        may_write(parent)?;
        Ok(Self {
            version: Version::Two,
            cpu: Some(parent.to_owned()),
            memory: Some(parent.to_owned()),
        })
    }

    fn version_one(hierarchies: &Hierarchies) -> Result<Self, String> {
        let usable = |controller, file| {
            let parent = hierarchies.of(controller).ok_or("not mounted")?;
            if !parent.join(file).exists() {
                return Err(format!("{} has no {file}", parent.display()));
            }
            may_write(parent).map(|()| parent.to_owned())
        };
        let cpu = usable("cpu", "cpu.cfs_quota_us");
        let memory = usable("memory", "memory.limit_in_bytes");
        if let (Err(cpu), Err(memory)) = (&cpu, &memory) {
            return Err(format!("cpu: {cpu}, memory: {memory}"));
        }
        Ok(Self {
            version: Version::One,
            cpu: cpu.ok(),
            memory: memory.ok(),
        })
    }

    pub(super) fn cpu_limit(&self) -> Enforcement {
        enforcement(self.cpu.as_ref())
    }

    pub(super) fn memory_limit(&self) -> Enforcement {
        enforcement(self.memory.as_ref())
    }

    /// Why some of these limits will not hold.
    pub(super) fn shortfall(&self, limits: &Limits) -> Option<&'static str> {
        if limits.cpu.is_some() && self.cpu.is_none() {
            return Some("the cpu hierarchy is not usable");
        }
        if limits.memory.is_some() && self.memory.is_none() {
            return Some("the memory hierarchy is not usable");
        }
        None
    }

    /// The cgroup of one child, not made yet: its place is recorded first.
    pub(super) fn plan(&self, limits: &Limits, pid: u32, started: u64) -> Leaf {
        let place = |parent: &Option<PathBuf>| {
            let name = format!("orchestra-{pid}-{started}");
            parent.as_ref().map(|parent| parent.join(name))
        };
        let cpu = limits.cpu.and_then(|_| place(&self.cpu));
        let memory = limits.memory.and_then(|_| place(&self.memory));
        Leaf::planned(self.version, cpu, memory)
    }
}

fn enforcement(parent: Option<&PathBuf>) -> Enforcement {
    match parent {
        Some(_) => Enforcement::Enforced,
        None => Enforcement::Unenforced,
    }
}

/// Whether cgroups can be made here. Making one to see would leave it behind if we died in between.
fn may_write(parent: &Path) -> Result<(), String> {
    let allowed = access(parent, Access::WRITE_OK | Access::EXEC_OK);
    allowed.map_err(|error| format!("{} cannot be used: {error}", parent.display()))
}
