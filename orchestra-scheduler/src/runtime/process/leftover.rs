//! Ends what a dead platform left running.

use std::fs;
use std::path::Path;
use std::time::Duration;

use orchestra_core::Listener;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::cgroup::Leaf;
use super::procfs::{self, Stat};
use super::record::{self, Record};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(5);

/// Kills every recorded process of the directory that still lives, waits until it is gone, and removes the
/// records. Blocks; the caller holds the lock of the directory, so no live platform owns a record.
pub(super) fn clear(directory: &Path, listener: &dyn Listener<Event>) -> Result<()> {
    let shown = directory.display();
    let failed = |error| Error::io(format!("records in {shown} cannot be read"), error);
    let boot = procfs::boot_id();
    for path in record::all(directory).map_err(failed)? {
        let text = fs::read_to_string(&path).map_err(failed)?;
        match Record::parse(&text) {
            // After a reboot nothing of it lives, and its number may be anyone's.
            Some(record) if boot.as_ref().is_none_or(|boot| *boot == record.boot) => {
                end(&record, listener)?;
            }
            Some(_) => {}
            None => tracing::warn!(path = %path.display(), "unreadable record of a child removed"),
        }
        fs::remove_file(&path).map_err(failed)?;
    }
    Ok(())
}

fn end(record: &Record, listener: &dyn Listener<Event>) -> Result<()> {
    let leaf = Leaf::existing(record.cgroups.clone());
    let mut waited = Duration::ZERO;
    let mut found = false;
    while kill_once(record, &leaf) {
        if !found {
            found = true;
            let (instance, pid) = (record.instance.clone(), record.pid);
            tracing::warn!(%instance, pid, "killing a process of a dead platform");
            listener.on_event(&Event::LeftoverKilled { instance, pid });
        }
        if waited >= PATIENCE {
            let Record { instance, pid, .. } = record;
            let context =
                format!("process {pid} of {instance}, left by a dead platform, does not die");
            return Err(Error::new(ErrorKind::Io, context));
        }
        std::thread::park_timeout(STEP);
        waited += STEP;
    }
    leaf.remove();
    Ok(())
}

/// Kills what is found of a child; whether there was anything.
fn kill_once(record: &Record, leaf: &Leaf) -> bool {
    let mut found = false;
    if record.is_running()
        && let Some(group) = pid(record.pid)
    {
        found = true;
        // It may be gone since; the next look tells.
        let _gone = kill_process_group(group, Signal::KILL);
    }
    for process in orphans(record).chain(leaf.processes()) {
        found = true;
        if let Some(process) = pid(process) {
            let _gone = kill_process(process, Signal::KILL);
        }
    }
    found
}

/// Members of the child's group that outlived it. The number of the group alone is no proof, since it may
/// have been reused; that they hold a pipe which this child was given, is.
fn orphans(record: &Record) -> impl Iterator<Item = u32> {
    procfs::processes().filter(|&process| {
        process != record.pid
            && Stat::of(process).is_some_and(|stat| stat.is_alive && stat.group == record.pid)
            && procfs::holds_pipe(process, &record.pipes)
    })
}

fn pid(raw: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(raw).ok()?)
}
