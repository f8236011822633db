//! Brings a child to life: blocking, in the order that leaves nothing behind.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::Inner;
use super::cgroup::Leaf;
use super::procfs;
use super::record::Record;
use super::slots::Group;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::ContainerSpec;

/// Waits for the line that says that all is recorded, then becomes the program. What a shell adds to the
/// environment is taken out again.
const GATE: &str = "read -r _ || exit 125";

/// A child that runs, recorded and limited.
pub(super) struct Born {
    pub(super) child: Child,
    pub(super) group: Arc<Group>,
    pub(super) pidfd: OwnedFd,
    /// Closing it tells the child that the platform is gone.
    pub(super) lifeline: ChildStdin,
    pub(super) out: OwnedFd,
    pub(super) err: OwnedFd,
    pub(super) leaf: Leaf,
    pub(super) record: PathBuf,
    pub(super) last: Last,
}

/// Kills the group when it is dropped: whoever holds it may be dropped with its tokio runtime at any
/// moment, also before it was polled once.
pub(super) struct Last(Arc<Group>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.signal(Signal::KILL);
    }
}

/// Starts a child. On failure nothing of it is left, neither process, record nor cgroup.
pub(super) fn bear(inner: &Inner, spec: &ContainerSpec) -> Result<Born> {
    let mut child = spawn(spec)?;
    match settle(inner, spec, &mut child) {
        Ok(settled) => Ok(settled.into_born(child)),
        Err(error) => {
            // It never got past the gate. Killing fails for what is dead, waiting for nothing.
            let _dead = child.kill();
            let _reaped = child.wait();
            Err(error)
        }
    }
}

fn spawn(spec: &ContainerSpec) -> Result<Child> {
    check(spec)?;
    let path = spec.env.value("PATH").map(Into::into);
    let path = path.or_else(|| std::env::var_os("PATH"));
    let program = find(spec, path.as_deref())?;
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg(gate(spec))
        .arg(program)
        .args(&spec.command.args)
        .env_clear()
        .envs(path.map(|path| ("PATH", path)))
        .envs(spec.env.iter())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(directory) = &spec.directory {
        command.current_dir(directory);
    }
    command.spawn().map_err(|error| {
        let context = match &spec.directory {
            Some(at) => format!("{} cannot be started in {}", spec.instance, at.display()),
            None => format!("{} cannot be started", spec.instance),
        };
        Error::io(context, error)
    })
}

/// The script of the shell that the child begins as.
fn gate(spec: &ContainerSpec) -> String {
    let mut script = GATE.to_owned();
    for name in ["PWD", "OLDPWD", "SHLVL"] {
        if spec.env.value(name).is_none() {
            script.push_str("; unset ");
            script.push_str(name);
        }
    }
    script.push_str("; exec \"$0\" \"$@\"");
    script
}

fn check(spec: &ContainerSpec) -> Result<()> {
    let invalid = |what: &str| {
        let context = format!("{} cannot be started: {what}", spec.instance);
        Err(Error::new(ErrorKind::Invalid, context))
    };
    if spec.command.program.is_empty() {
        return invalid("the program is empty");
    }
    let args = spec.command.args.iter().map(String::as_str);
    let values = spec.env.iter().map(|(_, value)| value);
    if args
        .chain(values)
        .chain([spec.command.program.as_str()])
        .any(|text| text.contains('\0'))
    {
        return invalid("an argument or variable holds a zero byte");
    }
    match spec.env.iter().find(|(name, _)| !passes_the_gate(name)) {
        Some((name, _)) => invalid(&format!(
            "variable {name:?} would not get past the shell that every child begins as"
        )),
        None => Ok(()),
    }
}

/// A shell drops variables that it cannot name, and has these for itself.
fn passes_the_gate(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    name.bytes().next().is_some_and(is_letter)
        && name
            .bytes()
            .all(|byte| is_letter(byte) || byte.is_ascii_digit())
        && !["IFS", "OPTIND", "PPID"].contains(&name)
}

/// Looks the program up, so that a missing one is an error of `start` and not the end of a shell.
fn find(spec: &ContainerSpec, path: Option<&std::ffi::OsStr>) -> Result<PathBuf> {
    let program = Path::new(&spec.command.program);
    let found = if spec.command.program.contains('/') {
        let base = spec.directory.as_deref().unwrap_or_else(|| Path::new(""));
        // An absolute program replaces the base; the child itself runs in that directory.
        is_program(&base.join(program)).then(|| program.to_owned())
    } else {
        let directories = path.map(std::env::split_paths).into_iter().flatten();
        directories
            .map(|directory| directory.join(program))
            .find(|path| is_program(path))
    };
    found.ok_or_else(|| {
        let context = format!(
            "{} cannot be started: program {} is missing or may not be executed",
            spec.instance, spec.command.program,
        );
        Error::new(ErrorKind::ProgramNotFound, context)
    })
}

fn is_program(path: &Path) -> bool {
    let metadata = std::fs::metadata(path);
    metadata.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// A child's belongings while it waits at the gate.
struct Settled {
    pid: Pid,
    pidfd: OwnedFd,
    lifeline: ChildStdin,
    out: OwnedFd,
    err: OwnedFd,
    leaf: Leaf,
    record: PathBuf,
}

impl Settled {
    fn into_born(self, child: Child) -> Born {
        let group = Arc::new(Group::new(self.pid));
        Born {
            child,
            last: Last(Arc::clone(&group)),
            group,
            pidfd: self.pidfd,
            lifeline: self.lifeline,
            out: self.out,
            err: self.err,
            leaf: self.leaf,
            record: self.record,
        }
    }
}

fn settle(inner: &Inner, spec: &ContainerSpec, child: &mut Child) -> Result<Settled> {
    let failed =
        |what: &str, error: io::Error| Error::io(format!("{} {what}", spec.instance), error);
    let number = child.id();
    let missing = || failed("cannot be observed", io::ErrorKind::NotFound.into());
    let pid = i32::try_from(number)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(missing)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())
        .map_err(|error| failed("cannot be observed", error.into()))?;
    let lifeline = child.stdin.take().ok_or_else(missing)?;
    let out = OwnedFd::from(child.stdout.take().ok_or_else(missing)?);
    let err = OwnedFd::from(child.stderr.take().ok_or_else(missing)?);
    let started = procfs::Stat::of(number).ok_or_else(missing)?.started;
    let leaf = leaf(inner, spec, number, started);
    let record = Record {
        instance: spec.instance.clone(),
        pid: number,
        started,
        boot: procfs::boot_id().unwrap_or_default(),
        pipes: pipes(&[lifeline.as_fd(), out.as_fd(), err.as_fd()]),
        cgroups: leaf.paths(),
    };
    let record = record
        .write(&inner.directory)
        .map_err(|error| failed("cannot be recorded", error))?;
    let mut settled = Settled {
        pid,
        pidfd,
        lifeline,
        out,
        err,
        leaf,
        record,
    };
    if let Err(error) = open_gate(spec, number, &mut settled) {
        let _dead = child.kill();
        let _reaped = child.wait();
        settled.leaf.remove();
        let _left = std::fs::remove_file(&settled.record);
        return Err(error);
    }
    Ok(settled)
}

fn open_gate(spec: &ContainerSpec, pid: u32, settled: &mut Settled) -> Result<()> {
    let failed =
        |what: &str, error: io::Error| Error::io(format!("{} {what}", spec.instance), error);
    settled
        .leaf
        .enclose(&spec.limits, pid)
        .map_err(|error| failed("cannot be limited", error))?;
    settled
        .lifeline
        .write_all(b"go\n")
        .map_err(|error| failed("ended before it began", error))
}

fn leaf(inner: &Inner, spec: &ContainerSpec, pid: u32, started: u64) -> Leaf {
    if spec.limits.is_empty() {
        return Leaf::none();
    }
    match &inner.cgroups {
        Ok(cgroups) => {
            if let Some(reason) = cgroups.shortfall(&spec.limits) {
                inner.warn_unenforced(reason);
            }
            cgroups.plan(&spec.limits, pid, started)
        }
        Err(reason) => {
            inner.warn_unenforced(reason);
            Leaf::none()
        }
    }
}

fn pipes(ends: &[impl AsFd; 3]) -> Vec<u64> {
    let numbers = ends
        .iter()
        .map(|end| rustix::fs::fstat(end).map(|stat| stat.st_ino));
    numbers.filter_map(std::result::Result::ok).collect()
}
