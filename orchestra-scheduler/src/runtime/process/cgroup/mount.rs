use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The cgroup, in each hierarchy, below which ours are made.
#[derive(Debug, Default)]
pub(super) struct Hierarchies {
    unified: Option<PathBuf>,
    controllers: HashMap<String, PathBuf>,
}

impl Hierarchies {
    /// From `/proc/self`; `parent` replaces our own cgroup.
    pub(super) fn of_this_process(parent: Option<&Path>) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::parse(&mounts, &own, parent)
    }

    fn parse(mounts: &str, own: &str, parent: Option<&Path>) -> Self {
        let mut found = Self::default();
        for mount in mounts.lines().filter_map(Mount::parse) {
            let place = |controller: &str| {
                let ours = parent.or_else(|| own_path(own, controller));
                mount.place(ours.unwrap_or_else(|| Path::new("/")))
            };
            if mount.kind == "cgroup2" {
                found.unified = Some(place(""));
                continue;
            }
            for controller in mount.options.split(',') {
                if matches!(controller, "cpu" | "memory") {
                    let place = place(controller);
                    found.controllers.insert(controller.to_owned(), place);
                }
            }
        }
        found
    }

    pub(super) fn unified(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    pub(super) fn of(&self, controller: &str) -> Option<&Path> {
        self.controllers.get(controller).map(PathBuf::as_path)
    }
}

/// Our cgroup in the hierarchy of a controller; the empty name is the unified hierarchy.
fn own_path<'a>(own: &'a str, controller: &str) -> Option<&'a Path> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let mut names = fields.next()?.split(',');
        let path = fields.next()?;
        names
            .any(|name| name == controller)
            .then(|| Path::new(path))
    })
}

/// A line of `mountinfo`; see `proc(5)`.
struct Mount<'a> {
    root: &'a Path,
    point: &'a Path,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let mut after = after.split(' ');
        let kind = after
            .next()
            .filter(|kind| matches!(*kind, "cgroup" | "cgroup2"))?;
        Some(Self {
            root: Path::new(before.next()?),
            point: Path::new(before.next()?),
            kind,
            options: after.nth(1)?,
        })
    }

    /// Where a cgroup is seen. In a container the mount may show a part of the hierarchy alone.
    fn place(&self, cgroup: &Path) -> PathBuf {
        let below = cgroup
            .strip_prefix(self.root)
            .unwrap_or_else(|_| Path::new(""));
        let below = below.strip_prefix("/").unwrap_or(below);
        self.point.join(below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 29 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
    const OWN: &str = "4:memory:/docker/x/y\n1:cpu,cpuacct:/a\n0::/b/c\n";

    #[test]
    fn each_hierarchy_is_found_with_our_own_place_in_it() {
        let found = Hierarchies::parse(HYBRID, OWN, None);
        assert_eq!(
            found.of("cpu"),
            Some(Path::new("/sys/fs/cgroup/cpu,cpuacct/a"))
        );
        assert_eq!(
            found.of("memory"),
            Some(Path::new("/sys/fs/cgroup/memory/y"))
        );
        assert_eq!(
            found.unified(),
            Some(Path::new("/sys/fs/cgroup/unified/b/c"))
        );
    }

    #[test]
    fn a_given_parent_replaces_our_own_place() {
        let found = Hierarchies::parse(HYBRID, OWN, Some(Path::new("/shop")));
        assert_eq!(
            found.of("cpu"),
            Some(Path::new("/sys/fs/cgroup/cpu,cpuacct/shop"))
        );
    }

    #[test]
    fn nothing_mounted_is_nothing_found() {
        let found = Hierarchies::parse("", OWN, None);
        assert_eq!((found.unified(), found.of("cpu")), (None, None));
    }
}
