//! DNS as a source, against dnsmasq.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use orchestra_core::Endpoint;
use orchestra_discovery::conformance::{Expresses, SourceSubject};
use orchestra_discovery::source::dns::{Config, Records};
use orchestra_discovery::{
    DnsSource, ErrorKind, Follow, Instance, Resolver, Scope, Source, WatchEvent, follow, resolver,
    source_suite,
};
use parking_lot::Mutex;
use tempfile::TempDir;

/// Each server has a port of its own, on an address of its own: `127.1.0.0/16` is as local as `127.0.0.1`.
const PORT: u16 = 33_150;
static SERVERS: AtomicU16 = AtomicU16::new(0);

/// A dnsmasq whose records are rewritten by restarting it: what it reads again on SIGHUP are hosts, not
/// SRV records.
struct Dnsmasq {
    directory: TempDir,
    address: SocketAddr,
    child: Mutex<Option<Child>>,
}

impl Dnsmasq {
    fn new() -> Arc<Self> {
        let number = SERVERS.fetch_add(1, Ordering::Relaxed);
        let [high, low] = number.to_be_bytes();
        let address = (Ipv4Addr::new(127, 1, high, low + 1), PORT).into();
        let server = Self {
            directory: tempfile::tempdir().unwrap(),
            address,
            child: Mutex::new(None),
        };
        server.write("");
        server.start();
        Arc::new(server)
    }

    fn write(&self, records: &str) {
        let address = self.address;
        let config = format!(
            "port={}\nlisten-address={}\nbind-interfaces\nno-resolv\nno-hosts\nno-daemon\nuser=root\n\
             auth-ttl=0\nlocal-ttl=0\nlocal=/example/\n{records}",
            address.port(),
            address.ip(),
        );
        std::fs::write(self.config(), config).unwrap();
    }

    fn config(&self) -> std::path::PathBuf {
        self.directory.path().join("dnsmasq.conf")
    }

    fn start(&self) {
        let binary = std::env::var("ORCH_TEST_DNSMASQ_BIN").unwrap();
        let child = Command::new(Path::new(&binary))
            .arg(format!("--conf-file={}", self.config().display()))
            .arg("--pid-file")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        *self.child.lock() = Some(child);
        self.await_answer();
    }

    /// It listens on TCP too, once it does on UDP.
    fn await_answer(&self) {
        for _ in 0..200 {
            if std::net::TcpStream::connect(self.address).is_ok() {
                return;
            }
            #[expect(clippy::disallowed_methods, reason = "a process is being awaited")]
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("dnsmasq at {} did not start", self.address);
    }

    fn kill(&self) {
        if let Some(mut child) = self.child.lock().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn hold(&self, records: &str) {
        self.kill();
        self.write(records);
        self.start();
    }

    fn config_for(&self, records: Records) -> Config {
        let mut config = Config::new([self.address], "{service}.example", records);
        config.ttl_floor = Duration::from_millis(20);
        config.negative_ceiling = Duration::from_millis(20);
        config.retry_after = Duration::from_millis(20);
        config.timeout = Duration::from_millis(200);
        config
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        self.kill();
    }
}

fn ip(instance: &Instance) -> std::net::IpAddr {
    match instance.endpoint {
        Endpoint::Tcp(address) => address.ip(),
        _ => panic!("{instance:?} is not at an address"),
    }
}

fn address_records(members: &[Instance]) -> String {
    let mut records = String::new();
    for member in members {
        writeln!(
            records,
            "host-record={}.example,{}",
            member.service,
            ip(member)
        )
        .unwrap();
    }
    records
}

fn service_records(members: &[Instance]) -> String {
    let mut records = String::new();
    for member in members {
        let (service, ip) = (&member.service, ip(member));
        let (priority, weight) = (member.priority, member.weight);
        let host = format!("host-{}.example", ip.to_string().replace('.', "-"));
        writeln!(records, "host-record={host},{ip}").unwrap();
        writeln!(
            records,
            "srv-host={service}.example,{host},9,{priority},{weight}"
        )
        .unwrap();
    }
    records
}

fn subject(records: Records, write: fn(&[Instance]) -> String) -> SourceSubject {
    let server = Dnsmasq::new();
    let mut config = server.config_for(records);
    config.max_changes = NonZeroUsize::new(4).unwrap();
    let source = Arc::new(DnsSource::new(config).unwrap());
    let (edited, broken) = (Arc::clone(&server), Arc::clone(&server));
    SourceSubject::new(source, Duration::from_millis(400), move |members| {
        edited.hold(&write(&members));
        std::future::ready(Ok(()))
    })
    .breaks(move |off| {
        if off {
            broken.kill();
        } else {
            broken.start();
        }
        std::future::ready(Ok(()))
    })
    .remembers(4)
    .keep(server)
}

fn of_addresses() -> SourceSubject {
    subject(Records::Addresses { port: 9 }, address_records)
}

fn of_targets() -> SourceSubject {
    let expresses = Expresses::default().weights().priorities();
    subject(Records::Services, service_records).expresses(expresses)
}

source_suite!(address_records_of_dnsmasq, || async { of_addresses() });
source_suite!(service_records_of_dnsmasq, || async { of_targets() });

fn scope() -> Scope {
    Scope::Service("payments".parse().unwrap())
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} did not happen");
}

#[tokio::test]
async fn members_stay_while_the_server_is_down_and_follow_it_when_it_is_back() {
    let server = Dnsmasq::new();
    server.hold("host-record=payments.example,10.0.0.1\n");
    let config = server.config_for(Records::Addresses { port: 80 });
    let source = Arc::new(DnsSource::new(config).unwrap());
    let payments = Resolver::new("payments".parse().unwrap(), resolver::Config::default());
    let config = follow::Config::default().seed(7);
    let follow = Follow::start(Arc::<DnsSource>::clone(&source), payments.clone(), config);
    follow.ready().await.unwrap();
    let ids = || -> Vec<String> {
        let members = payments.members();
        members.iter().map(|it| it.id.to_string()).collect()
    };
    assert_eq!(ids(), ["10.0.0.1:80"]);
    server.kill();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let error = source.snapshot(&scope()).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    assert!(matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::Timeout
    ));
    assert_eq!(ids(), ["10.0.0.1:80"]);
    server.hold("host-record=payments.example,10.0.0.2\n");
    until("the new address", || ids() == ["10.0.0.2:80"]).await;
    follow.shutdown().await.unwrap();
}

#[tokio::test]
async fn name_that_is_not_there_is_no_members() {
    let server = Dnsmasq::new();
    let config = server.config_for(Records::Services);
    let source = DnsSource::new(config).unwrap();
    let members = source.snapshot(&scope()).await.unwrap();
    assert!(members.instances().is_empty());
}

#[tokio::test]
async fn name_that_the_server_is_not_responsible_for_is_a_failure() {
    let server = Dnsmasq::new();
    let mut config = server.config_for(Records::Services);
    config.template = "{service}.elsewhere".to_owned();
    let source = DnsSource::new(config).unwrap();
    // It has nobody to forward to, and says REFUSED.
    let error = source.snapshot(&scope()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn both_families_and_srv_of_a_real_server_are_read() {
    let server = Dnsmasq::new();
    server.hold(
        "host-record=one.example,10.0.0.1,fd00::1\n\
         host-record=two.example,10.0.0.2\n\
         srv-host=payments.example,one.example,8080,10,60\n\
         srv-host=payments.example,two.example,8081,20,0\n",
    );
    let mut config = server.config_for(Records::Services);
    config.family = orchestra_discovery::source::dns::Family::Both;
    let source = DnsSource::new(config).unwrap();
    let members = source.snapshot(&scope()).await.unwrap();
    let members = members.instances().iter();
    let read: Vec<_> = members
        .map(|it| (it.endpoint.to_string(), it.priority, it.weight))
        .collect();
    assert_eq!(
        read,
        [
            ("10.0.0.1:8080".to_owned(), 10, 7_680),
            ("10.0.0.2:8081".to_owned(), 20, 1),
            ("[fd00::1]:8080".to_owned(), 10, 7_680),
        ]
    );
}

#[tokio::test]
async fn answer_too_long_for_udp_comes_whole() {
    let server = Dnsmasq::new();
    let mut records = String::new();
    for host in 1..=200 {
        writeln!(records, "host-record=payments.example,10.0.0.{host}").unwrap();
    }
    server.hold(&records);
    let config = server.config_for(Records::Addresses { port: 80 });
    let source = DnsSource::new(config).unwrap();
    let members = source.snapshot(&scope()).await.unwrap();
    assert_eq!(members.instances().len(), 200);
}

#[tokio::test]
async fn ttl_of_a_real_server_is_honoured() {
    let server = Dnsmasq::new();
    server.hold("host-record=payments.example,10.0.0.1,2\n");
    let config = server.config_for(Records::Addresses { port: 80 });
    let source = DnsSource::new(config).unwrap();
    let members = source.snapshot(&scope()).await.unwrap();
    let asked = tokio::time::Instant::now();
    server.hold("host-record=payments.example,10.0.0.2,2\n");
    let mut watch = source.watch(&scope(), members.revision()).await.unwrap();
    let event = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
    let waited = asked.elapsed();
    assert!(
        matches!(event, Ok(Ok(WatchEvent::Changes { .. }))),
        "{event:?}"
    );
    assert!(waited >= Duration::from_millis(1_800), "{waited:?}");
    assert!(waited <= Duration::from_millis(2_500), "{waited:?}");
}
