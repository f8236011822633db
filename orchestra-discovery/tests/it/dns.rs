//! DNS as a source, against a server that speaks the wire format on its own account.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use orchestra_discovery::source::dns::{Config, Family, Records};
use orchestra_discovery::{
    Change, DnsSource, Error, ErrorKind, Scope, Snapshot, Source, WatchEvent,
};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

const A: u16 = 1;
const NS: u16 = 2;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const AAAA: u16 = 28;
const SRV: u16 = 33;

const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;
const REFUSED: u8 = 5;

/// Owner, type, TTL and data.
type Record = (&'static str, u16, u32, Vec<u8>);

#[derive(Clone, Default)]
struct Reply {
    rcode: u8,
    truncated: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
}

impl Reply {
    fn code(rcode: u8) -> Self {
        Self {
            rcode,
            ..Self::default()
        }
    }

    fn answers(answers: impl Into<Vec<Record>>) -> Self {
        Self {
            answers: answers.into(),
            ..Self::default()
        }
    }

    fn authority(mut self, record: Record) -> Self {
        self.authorities.push(record);
        self
    }
}

fn short(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap().to_be_bytes()
}

fn wire(name: &str) -> Vec<u8> {
    let labels = name.trim_end_matches('.').split('.');
    let labels = labels.filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> = labels
        .flat_map(|label| [&[short(label.len())[1]], label.as_bytes()].concat())
        .collect();
    bytes.push(0);
    bytes
}

fn a(owner: &'static str, ttl: u32, ip: [u8; 4]) -> Record {
    (owner, A, ttl, ip.to_vec())
}

fn srv(owner: &'static str, priority: u16, weight: u16, port: u16, target: &str) -> Record {
    let numbers = [priority, weight, port].map(u16::to_be_bytes).concat();
    (owner, SRV, 0, [numbers, wire(target)].concat())
}

fn soa(ttl: u32, minimum: u32) -> Record {
    let numbers = [1, 2, 3, 4, minimum].map(u32::to_be_bytes).concat();
    let data = [wire("ns.example"), wire("admin.example"), numbers].concat();
    ("example", SOA, ttl, data)
}

/// The question's name in lower case, its type, and where it ends.
fn question(query: &[u8]) -> (String, u16, usize) {
    let mut name = String::new();
    let mut at = 12;
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        let label = std::str::from_utf8(&query[at + 1..end]).unwrap();
        name.push_str(&label.to_ascii_lowercase());
        name.push('.');
        at = end;
    }
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    (name, kind, at + 5)
}

fn encode(query: &[u8], end: usize, reply: &Reply) -> Vec<u8> {
    // An authoritative response to a standard query.
    let flags = [0x84 | (u8::from(reply.truncated) << 1), reply.rcode];
    let mut bytes = [&query[..2], &flags].concat();
    let counts = [1, reply.answers.len(), reply.authorities.len(), 0];
    bytes.extend(counts.iter().flat_map(|count| short(*count)));
    bytes.extend(&query[12..end]);
    for (owner, kind, ttl, data) in reply.answers.iter().chain(&reply.authorities) {
        bytes.extend(wire(owner));
        bytes.extend(kind.to_be_bytes());
        bytes.extend(1_u16.to_be_bytes());
        bytes.extend(ttl.to_be_bytes());
        bytes.extend(short(data.len()));
        bytes.extend(data);
    }
    bytes
}

/// What is answered to whom; questions about anything else are not answered.
#[derive(Default)]
struct Zone {
    replies: Mutex<BTreeMap<(String, u16, bool), Reply>>,
    asked: AtomicUsize,
}

impl Zone {
    /// Over UDP, and over TCP unless that is set on its own.
    fn set(&self, name: &str, kind: u16, reply: Reply) {
        let mut replies = self.replies.lock();
        replies.insert((name.to_owned(), kind, true), reply.clone());
        replies.insert((name.to_owned(), kind, false), reply);
    }

    fn set_tcp(&self, name: &str, kind: u16, reply: Reply) {
        self.replies
            .lock()
            .insert((name.to_owned(), kind, true), reply);
    }

    fn answer(&self, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let (name, kind, end) = question(query);
        let replies = self.replies.lock();
        let reply = replies.get(&(name, kind, tcp))?;
        Some(encode(query, end, reply))
    }
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Zone>) {
    let mut query = [0; 4_096];
    loop {
        let (length, from) = socket.recv_from(&mut query).await.unwrap();
        if let Some(answer) = zone.answer(&query[..length], false) {
            socket.send_to(&answer, from).await.unwrap();
        }
    }
}

async fn serve_tcp(mut stream: TcpStream, zone: Arc<Zone>) {
    while let Ok(length) = stream.read_u16().await {
        let mut query = vec![0; usize::from(length)];
        stream.read_exact(&mut query).await.unwrap();
        if let Some(answer) = zone.answer(&query, true) {
            stream.write_all(&short(answer.len())).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    }
}

struct Server {
    zone: Arc<Zone>,
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start() -> Self {
        let zone = Arc::new(Zone::default());
        // The same port for both; another one may have it for one of them.
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, Arc::clone(&zone)));
        let of_tcp = Arc::clone(&zone);
        tasks.spawn(async move {
            let mut streams = JoinSet::new();
            while let Ok((stream, _)) = tcp.accept().await {
                streams.spawn(serve_tcp(stream, Arc::clone(&of_tcp)));
            }
        });
        Self {
            zone,
            address,
            _tasks: tasks,
        }
    }
}

fn config(servers: &[&Server], records: Records) -> Config {
    let servers = servers.iter().map(|server| server.address);
    let mut config = Config::new(servers, "{service}.example", records);
    config.ttl_floor = Duration::from_millis(5);
    config.family = Family::V4Only;
    config
}

const AT_80: Records = Records::Addresses { port: 80 };
const NAME: &str = "payments.example.";

fn scope() -> Scope {
    Scope::Service("payments".parse().unwrap())
}

fn ids(members: &Snapshot) -> Vec<&str> {
    members
        .instances()
        .iter()
        .map(|it| it.id.as_str())
        .collect()
}

async fn snapshot(config: Config) -> Result<Snapshot, Error> {
    DnsSource::new(config).unwrap().snapshot(&scope()).await
}

async fn kind_of_failure(config: Config) -> ErrorKind {
    snapshot(config).await.unwrap_err().kind()
}

/// Waits for the members after the first ones, which must be there long before any ceiling.
async fn next_members(source: &DnsSource, members: &mut Snapshot) {
    let mut watch = source.watch(&scope(), members.revision()).await.unwrap();
    let event = tokio::time::timeout(Duration::from_secs(20), watch.next()).await;
    match event.unwrap().unwrap() {
        WatchEvent::Changes { revision, changes } => members.advance(revision, &changes),
        event => panic!("{event:?}"),
    }
}

#[tokio::test]
async fn addresses_are_asked_again_when_their_ttl_is_over() {
    let server = Server::start().await;
    server.zone.set(
        NAME,
        A,
        Reply::answers([a("payments.example", 0, [10, 0, 0, 1])]),
    );
    let source = DnsSource::new(config(&[&server], AT_80)).unwrap();
    let mut members = source.snapshot(&scope()).await.unwrap();
    assert_eq!(ids(&members), ["10.0.0.1:80"]);
    server.zone.set(
        NAME,
        A,
        Reply::answers([a("payments.example", 3_600, [10, 0, 0, 2])]),
    );
    next_members(&source, &mut members).await;
    assert_eq!(ids(&members), ["10.0.0.2:80"]);
    let asked = server.zone.asked.load(Ordering::Relaxed);
    for _ in 0..10 {
        source.snapshot(&scope()).await.unwrap();
    }
    assert_eq!(server.zone.asked.load(Ordering::Relaxed), asked);
}

#[tokio::test]
async fn ttl_of_an_alias_on_the_way_counts() {
    let server = Server::start().await;
    let alias = ("payments.example", CNAME, 0, wire("host.example"));
    let host = a("host.example", 3_600, [10, 0, 0, 1]);
    server.zone.set(NAME, A, Reply::answers([alias, host]));
    let source = DnsSource::new(config(&[&server], AT_80)).unwrap();
    let mut members = source.snapshot(&scope()).await.unwrap();
    assert_eq!(ids(&members), ["10.0.0.1:80"]);
    server.zone.set(
        NAME,
        A,
        Reply::answers([a("payments.example", 0, [10, 0, 0, 2])]),
    );
    next_members(&source, &mut members).await;
    assert_eq!(ids(&members), ["10.0.0.2:80"]);
}

#[tokio::test]
async fn alias_is_followed_to_another_answer() {
    let server = Server::start().await;
    let alias = ("payments.example", CNAME, 60, wire("host.example"));
    server.zone.set(NAME, A, Reply::answers([alias]));
    let host = Reply::answers([a("host.example", 60, [10, 0, 0, 1])]);
    server.zone.set("host.example.", A, host);
    let members = snapshot(config(&[&server], AT_80)).await.unwrap();
    assert_eq!(ids(&members), ["10.0.0.1:80"]);
}

#[tokio::test]
async fn no_name_and_no_records_are_no_members() {
    let server = Server::start().await;
    for rcode in [NXDOMAIN, 0] {
        let reply = Reply::code(rcode).authority(soa(60, 60));
        server.zone.set(NAME, A, reply);
        let members = snapshot(config(&[&server], AT_80)).await.unwrap();
        assert_eq!(ids(&members), Vec::<&str>::new(), "{rcode}");
    }
}

#[tokio::test]
async fn negative_answer_is_kept_for_the_lesser_of_the_two_times_of_its_soa() {
    for (ttl, minimum) in [(0, 3_600), (3_600, 0)] {
        let server = Server::start().await;
        let none = Reply::code(NXDOMAIN).authority(soa(ttl, minimum));
        server.zone.set(NAME, A, none);
        let source = DnsSource::new(config(&[&server], AT_80)).unwrap();
        let mut members = source.snapshot(&scope()).await.unwrap();
        server.zone.set(
            NAME,
            A,
            Reply::answers([a("payments.example", 60, [10, 0, 0, 1])]),
        );
        next_members(&source, &mut members).await;
        assert_eq!(ids(&members), ["10.0.0.1:80"]);
    }
    let server = Server::start().await;
    let none = Reply::code(NXDOMAIN).authority(soa(3_600, 3_600));
    server.zone.set(NAME, A, none);
    let source = DnsSource::new(config(&[&server], AT_80)).unwrap();
    for _ in 0..10 {
        source.snapshot(&scope()).await.unwrap();
    }
    assert_eq!(server.zone.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn refusal_and_failure_of_a_server_are_failures() {
    let server = Server::start().await;
    for rcode in [SERVFAIL, REFUSED] {
        server.zone.set(NAME, A, Reply::code(rcode));
        let kind = kind_of_failure(config(&[&server], AT_80)).await;
        assert_eq!(kind, ErrorKind::Unavailable, "{rcode}");
    }
}

#[tokio::test]
async fn silence_is_a_timeout() {
    let server = Server::start().await;
    let mut config = config(&[&server], AT_80);
    config.timeout = Duration::from_millis(50);
    config.retries = 0;
    assert_eq!(kind_of_failure(config).await, ErrorKind::Timeout);
}

#[tokio::test]
async fn referral_is_a_failure() {
    let server = Server::start().await;
    let elsewhere = ("example", NS, 60, wire("ns.elsewhere"));
    server
        .zone
        .set(NAME, A, Reply::code(0).authority(elsewhere));
    let kind = kind_of_failure(config(&[&server], AT_80)).await;
    assert_eq!(kind, ErrorKind::Protocol);
}

#[tokio::test]
async fn next_server_is_asked_when_one_fails() {
    let (broken, silent, well) = tokio::join!(Server::start(), Server::start(), Server::start());
    broken.zone.set(NAME, A, Reply::code(SERVFAIL));
    well.zone.set(
        NAME,
        A,
        Reply::answers([a("payments.example", 60, [10, 0, 0, 1])]),
    );
    for first in [&broken, &silent] {
        let mut config = config(&[first, &well], AT_80);
        config.timeout = Duration::from_millis(200);
        let members = snapshot(config).await.unwrap();
        assert_eq!(ids(&members), ["10.0.0.1:80"]);
        assert!(first.zone.asked.load(Ordering::Relaxed) > 0);
    }
}

#[tokio::test]
async fn truncated_answer_is_asked_again_over_tcp() {
    let server = Server::start().await;
    let truncated = Reply {
        truncated: true,
        ..Reply::default()
    };
    server.zone.set(NAME, A, truncated);
    let all: Vec<_> = (0..250)
        .map(|host| a("payments.example", 60, [10, 0, 0, host]))
        .collect();
    server.zone.set_tcp(NAME, A, Reply::answers(all));
    let members = snapshot(config(&[&server], AT_80)).await.unwrap();
    assert_eq!(members.instances().len(), 250);
}

#[tokio::test]
async fn targets_of_srv_records_are_resolved() {
    let server = Server::start().await;
    let records = [
        srv("payments.example", 10, 60, 8080, "one.example"),
        srv("payments.example", 10, 20, 8081, "two.example"),
        srv("payments.example", 20, 0, 8082, "three.example"),
    ];
    server.zone.set(NAME, SRV, Reply::answers(records));
    server.zone.set(
        "one.example.",
        A,
        Reply::answers([a("one.example", 60, [10, 0, 0, 1])]),
    );
    server.zone.set(
        "two.example.",
        A,
        Reply::answers([a("two.example", 60, [10, 0, 0, 2])]),
    );
    let none = Reply::code(0).authority(soa(60, 60));
    server.zone.set("three.example.", A, none);
    let v6 = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];
    let three = Reply::answers([("three.example", AAAA, 60, v6.to_vec())]);
    server.zone.set("three.example.", AAAA, three);
    let mut config = config(&[&server], Records::Services);
    config.family = Family::PreferV4;
    let members = snapshot(config).await.unwrap();
    let members = members.instances().iter();
    let read: Vec<_> = members
        .map(|it| (it.endpoint.to_string(), it.priority, it.weight))
        .collect();
    assert_eq!(
        read,
        [
            ("10.0.0.1:8080".to_owned(), 10, 60),
            ("10.0.0.2:8081".to_owned(), 10, 20),
            ("[fd00::3]:8082".to_owned(), 20, 1),
        ]
    );
}

#[tokio::test]
async fn record_that_stays_is_the_same_instance() {
    let server = Server::start().await;
    server.zone.set(
        NAME,
        A,
        Reply::answers([a("payments.example", 0, [10, 0, 0, 1])]),
    );
    let source = DnsSource::new(config(&[&server], AT_80)).unwrap();
    let before = source.snapshot(&scope()).await.unwrap();
    let both = [
        a("payments.example", 0, [10, 0, 0, 2]),
        a("payments.example", 0, [10, 0, 0, 1]),
    ];
    server.zone.set(NAME, A, Reply::answers(both));
    let mut watch = source.watch(&scope(), before.revision()).await.unwrap();
    let event = tokio::time::timeout(Duration::from_secs(20), watch.next()).await;
    let WatchEvent::Changes { changes, .. } = event.unwrap().unwrap() else {
        panic!("resync");
    };
    assert!(matches!(&*changes, [Change::Upserted(new)] if new.id.as_str() == "10.0.0.2:80"));
    let after = source.snapshot(&scope()).await.unwrap();
    assert_eq!(after.instances()[0], before.instances()[0]);
}
