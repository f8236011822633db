//! DNS as a source, against an authoritative server: Knot DNS.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use orchestra_discovery::source::dns::{Config, Records};
use orchestra_discovery::{DnsSource, Scope, Snapshot, Source, WatchEvent};
use tempfile::TempDir;

struct Knot {
    directory: TempDir,
    address: SocketAddr,
    child: Child,
}

impl Knot {
    /// A server of the zone `example.` with these records.
    fn start(port: u16, records: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let config = format!(
            "server:\n  listen: 127.0.0.1@{port}\n  rundir: {path}\n  udp-workers: 1\n  tcp-workers: 1\n  \
             background-workers: 1\n\
             database:\n  storage: {path}\n\
             zone:\n  - domain: example\n    storage: {path}\n    file: example.zone\n    \
             zonefile-sync: -1\n    zonefile-load: whole\n    journal-content: none\n"
        );
        std::fs::write(directory.path().join("knot.conf"), config).unwrap();
        write_zone(&directory, 1, records);
        let binary = std::env::var("ORCH_TEST_KNOTD_BIN").unwrap();
        let child = Command::new(binary)
            .arg("-c")
            .arg(directory.path().join("knot.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            directory,
            address,
            child,
        }
    }

    /// Another version of the zone, read without a restart.
    fn reload(&self, serial: u32, records: &str) {
        write_zone(&self.directory, serial, records);
        let sent = Command::new("kill")
            .args(["-HUP", &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    fn source(&self, records: Records) -> DnsSource {
        let mut config = Config::new([self.address], "_{service}._tcp.example", records);
        config.ttl_floor = Duration::from_millis(20);
        config.retry_after = Duration::from_millis(20);
        config.timeout = Duration::from_millis(500);
        DnsSource::new(config).unwrap()
    }
}

impl Drop for Knot {
    fn drop(&mut self) {
        let _gone = self.child.kill().is_err();
        let _gone = self.child.wait().is_err();
    }
}

/// Its negative answers are kept for the lesser of TTL and minimum of the SOA: two seconds.
fn write_zone(directory: &TempDir, serial: u32, records: &str) {
    let zone = format!(
        "$ORIGIN example.\n\
         @ 3600 SOA ns admin {serial} 3600 600 86400 2\n\
         @ 3600 NS ns\n\
         ns 3600 A 127.0.0.1\n{records}"
    );
    std::fs::write(directory.path().join("example.zone"), zone).unwrap();
}

fn scope() -> Scope {
    Scope::Service("payments".parse().unwrap())
}

/// The first answer, once the server has started.
async fn first(source: &DnsSource) -> Snapshot {
    for _ in 0..200 {
        if let Ok(members) = source.snapshot(&scope()).await {
            return members;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("no answer: {:?}", source.snapshot(&scope()).await);
}

fn read(members: &Snapshot) -> Vec<(String, u32, u32)> {
    let members = members.instances().iter();
    members
        .map(|it| (it.endpoint.to_string(), it.priority, it.weight))
        .collect()
}

#[tokio::test]
async fn zone_that_is_reloaded_is_followed_at_its_ttl() {
    let knot = Knot::start(
        33_170,
        "_payments._tcp 2 SRV 10 60 8080 one\n\
         _payments._tcp 2 SRV 20 0 8081 two\n\
         one 3600 A 10.0.0.1\n\
         two 3600 AAAA fd00::2\n",
    );
    let source = knot.source(Records::Services);
    let mut members = first(&source).await;
    let asked = tokio::time::Instant::now();
    let second = ("[fd00::2]:8081".to_owned(), 20, 1);
    assert_eq!(
        read(&members),
        [("10.0.0.1:8080".to_owned(), 10, 60), second.clone()]
    );
    knot.reload(
        2,
        "_payments._tcp 2 SRV 20 0 8081 two\ntwo 3600 AAAA fd00::2\n",
    );
    let mut watch = source.watch(&scope(), members.revision()).await.unwrap();
    let event = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
    let waited = asked.elapsed();
    let Ok(Ok(WatchEvent::Changes { revision, changes })) = event else {
        panic!("{event:?}");
    };
    members.advance(revision, &changes);
    assert_eq!(read(&members), [second]);
    assert!(waited >= Duration::from_millis(1_700), "{waited:?}");
}

#[tokio::test]
async fn negative_answer_is_kept_as_the_soa_says() {
    let knot = Knot::start(33_171, "other 60 A 10.0.0.9\n");
    let source = knot.source(Records::Services);
    let members = first(&source).await;
    let asked = tokio::time::Instant::now();
    assert!(members.instances().is_empty());
    knot.reload(
        2,
        "_payments._tcp 60 SRV 1 1 80 other\nother 60 A 10.0.0.9\n",
    );
    let mut watch = source.watch(&scope(), members.revision()).await.unwrap();
    let event = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
    let waited = asked.elapsed();
    assert!(
        matches!(event, Ok(Ok(WatchEvent::Changes { .. }))),
        "{event:?}"
    );
    assert!(waited >= Duration::from_millis(1_700), "{waited:?}");
}
