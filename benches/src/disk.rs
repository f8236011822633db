//! What figures that wait for a disk need, of ours and of each rival.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// File systems that keep nothing on a disk.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

/// How long work is waited for after it was measured.
const END: Duration = Duration::from_secs(10);

/// A directory on a real disk.
#[derive(Debug)]
pub struct Disk {
    directory: PathBuf,
    /// The name of the file system.
    pub file_system: String,
}

impl Disk {
    /// The directory that `ORCHESTRA_BENCH_DISK` names, or one below the system's for temporary files.
    ///
    /// Ends the program if it is in memory: a figure of a sync that syncs nothing is worth nothing.
    pub fn of_environment() -> Self {
        let named = std::env::var_os("ORCHESTRA_BENCH_DISK").map(PathBuf::from);
        let directory = named.unwrap_or_else(|| std::env::temp_dir().join("orchestra-bench-disk"));
        std::fs::create_dir_all(&directory).expect("the directory can be made");
        let file_system = file_system_of(&directory).unwrap_or_else(|refusal| {
            eprintln!("{refusal}; ORCHESTRA_BENCH_DISK names a directory on a disk");
            std::process::exit(1);
        });
        Self {
            directory,
            file_system,
        }
    }

    /// An empty directory of this process.
    pub fn scratch(&self, name: &str) -> Scratch {
        let name = format!("{name}-{}", std::process::id());
        let path = self.directory.join(name);
        std::fs::create_dir_all(&path).expect("a directory can be made");
        Scratch(path)
    }
}

/// A directory that is removed in the end.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A path inside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Somebody may still write into it.
        for _ in 0..50 {
            if std::fs::remove_dir_all(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The name of the file system, or why it is of no use: it must be on a disk.
pub fn file_system_of(directory: &Path) -> Result<String, String> {
    let of = |path: &Path| format!("{}", path.display());
    let real = directory
        .canonicalize()
        .map_err(|error| format!("{}: {error}", of(directory)))?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").map_err(|error| error.to_string())?;
    // Of several at one place the last is the one that is seen.
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let (_, name) = mounts
        .filter(|(at, _)| real.starts_with(at))
        .max_by_key(|(at, _)| at.len())
        .ok_or_else(|| format!("{} is on no file system", of(&real)))?;
    if IN_MEMORY.contains(&name) {
        return Err(format!("{} is on {name}, which is in memory", of(&real)));
    }
    Ok(name.to_owned())
}

/// A file that is written page by page, and synced after each.
#[derive(Debug)]
pub struct Syncs(File);

/// The pages that are there from the start in a file that does not grow.
const PAGES: usize = 256;

impl Syncs {
    /// A file that grows by each page: the system writes down its new length as well.
    pub fn growing(path: &Path) -> Self {
        Self(File::create(path).expect("a file can be made"))
    }

    /// A file that has its length.
    pub fn in_place(path: &Path) -> Self {
        let mut file = File::create(path).expect("a file can be made");
        for _ in 0..PAGES {
            file.write_all(&[0; 4096]).expect("the disk has room");
        }
        file.sync_all().expect("the disk works");
        file.rewind().expect("a file has a beginning");
        Self(file)
    }

    /// How long `fdatasync` of the next 4 KiB takes.
    pub fn sample(&mut self) -> Duration {
        self.0.write_all(&[7; 4096]).expect("the disk has room");
        let begun = Instant::now();
        self.0.sync_data().expect("the disk works");
        begun.elapsed()
    }

    /// As [`Syncs::sample`], from the beginning again.
    pub fn sample_in_place(&mut self) -> Duration {
        self.0.rewind().expect("a file has a beginning");
        self.sample()
    }
}

/// The median in microseconds.
pub fn median(samples: &mut [Duration]) -> f64 {
    samples.sort_unstable();
    samples[samples.len() / 2].as_secs_f64() * 1e6
}

/// Two workers that also wait for sockets.
pub fn two_workers_and_sockets() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all();
    builder.build().expect("two threads can be started")
}

/// How much of this work is done in a second while so many tasks are at it, each again and again: none of
/// them waits for the slowest of a batch. What is done before `warm` has passed does not count.
pub fn sustained<F>(
    runtime: &Runtime,
    at_once: u64,
    (warm, window): (Duration, Duration),
    work: impl Fn() -> F + Clone + Send + 'static,
) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    let done = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for _ in 0..at_once {
            let (work, done, stop) = (work.clone(), Arc::clone(&done), Arc::clone(&stop));
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    work().await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        tokio::time::sleep(warm).await;
        let (before, begun) = (done.load(Ordering::Relaxed), Instant::now());
        tokio::time::sleep(window).await;
        let rate = (done.load(Ordering::Relaxed) - before) as f64 / begun.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        let all = async {
            while let Some(ended) = tasks.join_next().await {
                ended.expect("the work does not fail");
            }
        };
        // What hangs is given up.
        let _elapsed = tokio::time::timeout(END, all).await;
        rate
    })
}
