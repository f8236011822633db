//! Servers of one's own, and what every backend must do against a real one.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use orchestra_core::{Clock, SystemClock};
use orchestra_discovery::{
    Heartbeat, Lease, Registration, Registry, Revision, Scope, Snapshot, Status, Watch, WatchEvent,
    heartbeat,
};
use orchestra_testkit::Process;
use tempfile::TempDir;

/// How long anything may take that takes no time.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// What the variable says.
pub(crate) fn variable(name: &str) -> String {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.unwrap_or_else(|| panic!("{name} must name what to test against; see .ci/live"))
}

/// A name that no other test of this run has, nor one of another run.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("live-{}-{number}", std::process::id())
}

/// A port that nobody listens on, from the thirty that begin at `ORCH_TEST_PORTS`.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = std::env::var("ORCH_TEST_PORTS").map_or(33_120, |base| base.parse().unwrap());
    for _ in 0..30 {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % 30;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("none of the thirty ports from {base} is free");
}

/// A server of the test's own, that can be killed and started again with what it has on disk.
pub(crate) struct Server {
    pub(crate) directory: TempDir,
    pub(crate) port: u16,
    command: Box<dyn Fn(&Self) -> Command + Send + Sync>,
    process: Option<Process>,
}

impl Server {
    pub(crate) async fn start(command: impl Fn(&Self) -> Command + Send + Sync + 'static) -> Self {
        let mut server = Self {
            directory: tempfile::tempdir().unwrap(),
            port: free_port(),
            command: Box::new(command),
            process: None,
        };
        server.again().await;
        server
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn process(&self) -> &Process {
        self.process.as_ref().unwrap()
    }

    /// SIGKILL: it has no time to write anything down.
    pub(crate) async fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait_within(GRACE).await.unwrap();
    }

    pub(crate) async fn again(&mut self) {
        let process = Process::spawn((self.command)(self)).unwrap();
        let up = async {
            while tokio::net::TcpStream::connect(self.address())
                .await
                .is_err()
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let listens = tokio::time::timeout(GRACE, up).await.is_ok();
        assert!(listens, "the server does not listen: {:?}", process.lines());
        self.process = Some(process);
    }
}

pub(crate) fn asked(id: &str, ttl: Duration) -> Registration {
    let endpoint = "127.0.0.1:9".parse().unwrap();
    Registration::new(service(), id.parse().unwrap(), endpoint, ttl)
}

fn service() -> orchestra_core::ServiceName {
    "live".parse().unwrap()
}

pub(crate) fn scope() -> Scope {
    Scope::Service(service())
}

pub(crate) async fn watch_from_now(registry: &dyn Registry) -> (Snapshot, Watch) {
    let snapshot = registry.snapshot(&scope()).await.unwrap();
    let watch = registry.watch(&scope(), snapshot.revision()).await.unwrap();
    (snapshot, watch)
}

/// The next event, however often it fails before.
pub(crate) async fn next(watch: &mut Watch) -> WatchEvent {
    let event = async {
        loop {
            match watch.next().await {
                Ok(event) => return event,
                Err(_down) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(GRACE, event).await.unwrap()
}

/// Repeats a call until the server is there.
pub(crate) async fn eventually<T>(
    mut call: impl AsyncFnMut() -> orchestra_discovery::Result<T>,
) -> T {
    let answer = async {
        loop {
            if let Ok(answer) = call().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(GRACE, answer).await.unwrap()
}

pub(crate) async fn listed(registry: &dyn Registry) -> Vec<String> {
    let snapshot = eventually(async || registry.snapshot(&scope()).await).await;
    let instances = snapshot.instances().iter();
    instances.map(|instance| instance.id.to_string()).collect()
}

/// The snapshot as the watch changes it, until it has seen `upto`.
pub(crate) async fn advance(mut snapshot: Snapshot, watch: &mut Watch, upto: Revision) -> Snapshot {
    while snapshot.revision() < upto {
        match next(watch).await {
            WatchEvent::Changes { revision, changes } => snapshot.advance(revision, &changes),
            other => panic!("{other:?}"),
        }
    }
    snapshot
}

/// Applies what a watch says until it has seen `upto`.
async fn follow(
    registry: Arc<dyn Registry>,
    mut upto: tokio::sync::watch::Receiver<Revision>,
) -> Snapshot {
    let (mut snapshot, mut watch) = watch_from_now(&*registry).await;
    loop {
        let wanted = *upto.borrow_and_update();
        if wanted > Revision::default() && watch.revision() >= wanted {
            return snapshot;
        }
        tokio::select! {
            event = watch.next() => {
                if let WatchEvent::Changes { revision, changes } = event.unwrap() {
                    snapshot.advance(revision, &changes);
                } else {
                    (snapshot, watch) = watch_from_now(&*registry).await;
                }
            }
            _ = upto.changed() => {}
        }
    }
}

/// Ten thousand changes, eight at a time, end in the same set for who follows as for who looks.
pub(crate) async fn changes_end_in_the_same_set(registry: Arc<dyn Registry>) {
    const WRITERS: u64 = 8;
    const EACH: u64 = 1_250;
    let done = tokio::sync::watch::Sender::new(Revision::default());
    let mut followers = tokio::task::JoinSet::new();
    for _ in 0..2 {
        followers.spawn(follow(Arc::clone(&registry), done.subscribe()));
    }
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(Arc::clone(&registry), writer, EACH));
    }
    let mut changes = 0;
    while let Some(made) = writers.join_next().await {
        changes += made.unwrap();
    }
    assert_eq!(changes, WRITERS * EACH);
    let last = registry.snapshot(&scope()).await.unwrap();
    done.send_replace(last.revision());
    let followed = tokio::time::timeout(GRACE * 3, followers.join_all()).await;
    for followed in followed.unwrap() {
        assert_eq!(followed.instances(), last.instances());
    }
    assert!(!last.instances().is_empty());
}

/// Makes `count` changes: each call is one.
async fn write(registry: Arc<dyn Registry>, writer: u64, count: u64) -> u64 {
    let mut rng = fastrand::Rng::with_seed(writer);
    let mut leases: BTreeMap<u64, (Lease, Status)> = BTreeMap::new();
    for _ in 0..count {
        let number = rng.u64(..16);
        match leases.get_mut(&number) {
            Some((lease, _)) if rng.u64(..3) == 0 => {
                registry.deregister(lease).await.unwrap();
                leases.remove(&number);
            }
            Some((lease, status)) if rng.bool() => {
                let other = match *status {
                    Status::Ready => Status::Draining,
                    _ => Status::Ready,
                };
                registry.set_status(lease, other).await.unwrap();
                *status = other;
            }
            _ => {
                let asked = asked(&format!("w{writer}-{number}"), Duration::from_secs(600));
                let lease = registry.register(asked).await.unwrap();
                leases.insert(number, (lease, Status::Ready));
            }
        }
    }
    count
}

/// From the call of `register` until a watch tells, over 500 registrations.
pub(crate) async fn watchers_hear_in_time(name: &str, registry: Arc<dyn Registry>) {
    const SAMPLES: usize = 500;
    let clock = SystemClock::new();
    let (_, mut watch) = watch_from_now(&*registry).await;
    let mut took = Vec::with_capacity(SAMPLES);
    for sample in 0..SAMPLES {
        let asked = asked(&format!("i-{sample}"), Duration::from_secs(600));
        let begun = clock.now();
        let (lease, event) = tokio::join!(registry.register(asked), watch.next());
        took.push(clock.now().since(begun));
        let WatchEvent::Changes { changes, .. } = event.unwrap() else {
            panic!("resync without need");
        };
        let told = matches!(&*changes, [orchestra_discovery::Change::Upserted(instance)]
            if instance.incarnation == lease.unwrap().incarnation);
        assert!(told, "{changes:?}");
    }
    took.sort_unstable();
    let (p50, p99) = (took[SAMPLES / 2], took[SAMPLES * 99 / 100]);
    println!("figure {name}_register_to_watcher p50 {p50:?} p99 {p99:?}");
    assert!(p99 <= Duration::from_millis(50), "p99 is {p99:?}");
}

pub(crate) fn heartbeat(registry: Arc<dyn Registry>, id: &str, ttl: Duration) -> Heartbeat {
    let config = heartbeat::Config::default().seed(7);
    Heartbeat::start(registry, asked(id, ttl), config)
}
