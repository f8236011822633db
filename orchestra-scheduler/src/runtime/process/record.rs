//! What a platform writes down of a child, for the next platform to find.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use orchestra_core::InstanceId;

use super::procfs;

/// One child, identified beyond the reuse of its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) instance: InstanceId,
    /// Its number, which is its group's too.
    pub(super) pid: u32,
    /// Its start time in ticks since boot.
    pub(super) started: u64,
    pub(super) boot: String,
    /// The numbers of the pipes that it and its offspring were given.
    pub(super) pipes: Vec<u64>,
    /// The cgroups made for it alone.
    pub(super) cgroups: Vec<PathBuf>,
}

const SUFFIX: &str = "child";

impl Record {
    /// Where the record of this child is kept; no two children have the same place.
    pub(super) fn path(&self, directory: &Path) -> PathBuf {
        let Self { pid, started, .. } = self;
        directory.join(format!("{pid}-{started}.{SUFFIX}"))
    }

    /// Writes the record so that it survives a crash of the machine once this returns, whole or not at all.
    pub(super) fn write(&self, directory: &Path) -> io::Result<PathBuf> {
        let path = self.path(directory);
        let draft = path.with_extension("draft");
        let mut file = File::create(&draft)?;
        file.write_all(self.to_text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        File::open(directory)?.sync_all()?;
        Ok(path)
    }

    fn to_text(&self) -> String {
        let Self {
            instance,
            pid,
            started,
            boot,
            ..
        } = self;
        let mut lines = vec![
            format!("instance={instance}"),
            format!("pid={pid}"),
            format!("started={started}"),
            format!("boot={boot}"),
        ];
        lines.extend(self.pipes.iter().map(|pipe| format!("pipe={pipe}")));
        let cgroups = self.cgroups.iter().map(|path| path.display());
        lines.extend(cgroups.map(|path| format!("cgroup={path}")));
        lines.join("\n") + "\n"
    }

    /// `None` if the text is not a whole record.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let all = |key: &'static str| {
            let pairs = text.lines().filter_map(|line| line.split_once('='));
            pairs.filter(move |pair| pair.0 == key).map(|pair| pair.1)
        };
        let pipes = all("pipe").map(|pipe| pipe.parse().ok());
        Some(Self {
            instance: InstanceId::new(all("instance").next()?).ok()?,
            pid: all("pid").next()?.parse().ok()?,
            started: all("started").next()?.parse().ok()?,
            boot: all("boot").next()?.to_owned(),
            pipes: pipes.collect::<Option<_>>()?,
            cgroups: all("cgroup").map(PathBuf::from).collect(),
        })
    }

    /// Whether the process with this number is the child of the record, running.
    pub(super) fn is_running(&self) -> bool {
        procfs::Stat::of(self.pid).is_some_and(|stat| stat.is_alive && stat.started == self.started)
    }
}

/// The places of all records in a directory.
pub(super) fn all(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == SUFFIX)
        {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            instance: InstanceId::new("payments-0").unwrap(),
            pid: 42,
            started: 7,
            boot: "b-o-o-t".to_owned(),
            pipes: vec![1, 2, 3],
            cgroups: vec![PathBuf::from("/sys/fs/cgroup/memory/a=b")],
        }
    }

    #[test]
    fn a_written_record_reads_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = record().write(directory.path()).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(all(directory.path()).unwrap(), [path]);
        assert_eq!(Record::parse(&text), Some(record()));
    }

    #[test]
    fn a_torn_record_is_no_record() {
        let text = record().to_text();
        let end = text.find("boot=").unwrap();
        assert_eq!(Record::parse(&text[..end]), None);
    }
}
