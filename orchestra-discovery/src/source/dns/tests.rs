use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;

use super::answer::{Answer, Kind, Record, Srv};
use super::ttl::Ttl;
use super::*;
use crate::source::{Change, WatchEvent};

/// A server that answers at once from what it holds, or not at all.
struct Zone {
    records: Mutex<HashMap<(String, Kind), Vec<Record>>>,
    ttl: Mutex<Duration>,
    negative: Option<Duration>,
    fails: Mutex<Option<ErrorKind>>,
    /// A name that cannot be asked about.
    lame: Mutex<Option<String>>,
    asked: AtomicU64,
    takes: Duration,
}

impl Default for Zone {
    fn default() -> Self {
        Self {
            records: Mutex::default(),
            ttl: Mutex::new(Duration::from_secs(60)),
            negative: Some(Duration::from_secs(10)),
            fails: Mutex::default(),
            lame: Mutex::default(),
            asked: AtomicU64::new(0),
            takes: Duration::ZERO,
        }
    }
}

impl Zone {
    fn set(&self, name: &str, records: Vec<Record>) {
        let kind = |record: &Record| match record {
            Record::Address(IpAddr::V4(_)) => Kind::A,
            Record::Address(IpAddr::V6(_)) => Kind::Aaaa,
            Record::Service(_) => Kind::Srv,
        };
        let mut held = self.records.lock();
        held.retain(|(held, _), _| held != name);
        for record in records {
            let key = (name.to_owned(), kind(&record));
            held.entry(key).or_default().push(record);
        }
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

/// What a test keeps of the zone that it gives to the source.
impl Ask for Arc<Zone> {
    async fn ask(&self, name: &str, kind: Kind) -> Result<Answer> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(self.takes).await;
        if let Some(fails) = *self.fails.lock() {
            return Err(Error::new(fails, "no answer"));
        }
        if self.lame.lock().as_deref() == Some(name) {
            return Err(Error::new(ErrorKind::Unavailable, "SERVFAIL"));
        }
        let records = self.records.lock().get(&(name.to_owned(), kind)).cloned();
        Ok(match records {
            Some(records) => Answer {
                records,
                ttl: Ttl::Records(*self.ttl.lock()),
            },
            None => Answer {
                records: Vec::new(),
                ttl: Ttl::None(self.negative),
            },
        })
    }
}

fn address(ip: &str) -> Record {
    Record::Address(ip.parse().unwrap())
}

fn srv(priority: u16, weight: u16, target: &str) -> Record {
    Record::Service(Srv {
        priority,
        weight,
        port: 8080,
        target: target.to_owned(),
    })
}

fn config(records: Records) -> Config {
    let mut config = Config::new(
        ["127.0.0.1:53".parse().unwrap()],
        "{service}.example",
        records,
    );
    config.seed = Some(7);
    config
}

const AT_80: Records = Records::Addresses { port: 80 };

fn source(config: Config) -> (Arc<Services<Arc<Zone>>>, Arc<Zone>) {
    let zone = Arc::new(Zone::default());
    let source = Services::new(config, Arc::clone(&zone)).unwrap();
    (Arc::new(source), zone)
}

fn scope() -> Scope {
    Scope::Service("payments".parse().unwrap())
}

async fn ids(source: &dyn Source) -> Result<Vec<String>> {
    let members = source.snapshot(&scope()).await?;
    Ok(members
        .instances()
        .iter()
        .map(|it| it.id.to_string())
        .collect())
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn answer_is_kept_for_its_ttl_and_no_longer() {
    let (source, zone) = source(config(AT_80));
    zone.set("payments.example.", vec![address("10.0.0.1")]);
    assert_eq!(ids(&*source).await.unwrap(), ["10.0.0.1:80"]);
    zone.set("payments.example.", vec![address("10.0.0.2")]);
    pass(53).await;
    assert_eq!(ids(&*source).await.unwrap(), ["10.0.0.1:80"]);
    assert_eq!(zone.asked(), 1);
    pass(7).await;
    assert_eq!(ids(&*source).await.unwrap(), ["10.0.0.2:80"]);
    assert_eq!(zone.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn ttl_of_zero_is_kept_for_the_floor_and_a_long_one_to_the_ceiling() {
    let (source, zone) = source(config(AT_80));
    zone.set("payments.example.", vec![address("10.0.0.1")]);
    *zone.ttl.lock() = Duration::ZERO;
    for _ in 0..100 {
        ids(&*source).await.unwrap();
    }
    assert_eq!(zone.asked(), 1);
    pass(1).await;
    *zone.ttl.lock() = Duration::from_secs(86_400);
    ids(&*source).await.unwrap();
    assert_eq!(zone.asked(), 2);
    pass(300).await;
    ids(&*source).await.unwrap();
    assert_eq!(zone.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn no_such_name_is_no_members_and_kept_as_the_soa_says() {
    let (source, zone) = source(config(Records::Services));
    assert!(ids(&*source).await.unwrap().is_empty());
    pass(8).await;
    assert!(ids(&*source).await.unwrap().is_empty());
    assert_eq!(zone.asked(), 1);
    pass(2).await;
    ids(&*source).await.unwrap();
    assert_eq!(zone.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn failure_is_told_as_what_it_is_and_not_asked_about_by_each_call() {
    let (source, zone) = source(config(AT_80));
    *zone.fails.lock() = Some(ErrorKind::Unavailable);
    for _ in 0..100 {
        let error = ids(&*source).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    assert_eq!(zone.asked(), 1);
    pass(1).await;
    *zone.fails.lock() = None;
    zone.set("payments.example.", vec![address("10.0.0.1")]);
    assert_eq!(ids(&*source).await.unwrap(), ["10.0.0.1:80"]);
}

#[tokio::test(start_paused = true)]
async fn questions_that_take_too_long_are_a_timeout() {
    let zone = Arc::new(Zone {
        takes: Duration::from_secs(60),
        ..Zone::default()
    });
    let source = Services::new(config(AT_80), zone).unwrap();
    let began = tokio::time::Instant::now();
    let error = ids(&source).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(began.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn srv_targets_are_resolved_with_priority_weight_and_port() {
    let (source, zone) = source(config(Records::Services));
    let records = vec![
        srv(1, 60, "a.example."),
        srv(1, 20, "b.example."),
        srv(2, 0, "b.example."),
    ];
    zone.set("payments.example.", records);
    zone.set("a.example.", vec![address("10.0.0.1")]);
    zone.set("b.example.", vec![address("10.0.0.2"), address("fd00::2")]);
    let members = source.snapshot(&scope()).await.unwrap();
    let members = members.instances().iter();
    let read: Vec<_> = members
        .map(|it| (it.id.as_str(), it.priority, it.weight))
        .collect();
    assert_eq!(read, [("10.0.0.1:8080", 1, 60), ("10.0.0.2:8080", 1, 20)]);
}

#[tokio::test(start_paused = true)]
async fn target_that_is_the_root_is_no_member() {
    let (source, zone) = source(config(Records::Services));
    zone.set("payments.example.", vec![srv(0, 0, ".")]);
    assert!(ids(&*source).await.unwrap().is_empty());
    assert_eq!(zone.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn target_that_cannot_be_asked_about_fails_the_whole() {
    let (source, zone) = source(config(Records::Services));
    zone.set(
        "payments.example.",
        vec![srv(1, 1, "a.example."), srv(1, 1, "b.example.")],
    );
    zone.set("a.example.", vec![address("10.0.0.1")]);
    *zone.lame.lock() = Some("b.example.".to_owned());
    let error = ids(&*source).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    *zone.lame.lock() = None;
    pass(1).await;
    // That it has no address is known now.
    assert_eq!(ids(&*source).await.unwrap(), ["10.0.0.1:8080"]);
}

#[tokio::test(start_paused = true)]
async fn many_targets_are_all_resolved() {
    let (source, zone) = source(config(Records::Services));
    let target = |number: usize| format!("t{number}.example.");
    let records = (0..500).map(|number| srv(1, 1, &target(number))).collect();
    zone.set("payments.example.", records);
    for number in 0..500 {
        let ip = format!("10.0.{}.{}", number / 250, number % 250);
        zone.set(&target(number), vec![address(&ip)]);
    }
    assert_eq!(ids(&*source).await.unwrap().len(), 500);
}

#[tokio::test(start_paused = true)]
async fn answer_with_too_many_members_is_a_failure() {
    let mut few = config(AT_80);
    few.max_members = NonZeroUsize::MIN;
    let (source, zone) = source(few);
    zone.set(
        "payments.example.",
        vec![address("10.0.0.1"), address("10.0.0.2")],
    );
    let error = ids(&*source).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
}

#[tokio::test(start_paused = true)]
async fn family_says_which_addresses_are_members() {
    let (v4, v6) = ("10.0.0.1", "fd00::1");
    let (id4, id6) = ("10.0.0.1:80", "fd00:0:0:0:0:0:0:1:80");
    let cases: [(Family, &[&str], &[&str]); 8] = [
        (Family::V4Only, &[v4, v6], &[id4]),
        (Family::V4Only, &[v6], &[]),
        (Family::V6Only, &[v4, v6], &[id6]),
        (Family::PreferV4, &[v4, v6], &[id4]),
        (Family::PreferV4, &[v6], &[id6]),
        (Family::PreferV6, &[v4, v6], &[id6]),
        (Family::PreferV6, &[v4], &[id4]),
        (Family::Both, &[v4, v6], &[id4, id6]),
    ];
    for (family, held, expected) in cases {
        let mut config = config(AT_80);
        config.family = family;
        let (source, zone) = source(config);
        zone.set(
            "payments.example.",
            held.iter().map(|ip| address(ip)).collect(),
        );
        assert_eq!(
            ids(&*source).await.unwrap(),
            expected,
            "{family:?} {held:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn watch_resolves_again_at_the_ttl_and_tells_the_difference() {
    let (source, zone) = source(config(AT_80));
    zone.set(
        "payments.example.",
        vec![address("10.0.0.1"), address("10.0.0.2")],
    );
    let members = source.snapshot(&scope()).await.unwrap();
    let mut watch = source.watch(&scope(), members.revision()).await.unwrap();
    zone.set(
        "payments.example.",
        vec![address("10.0.0.2"), address("10.0.0.3")],
    );
    let began = tokio::time::Instant::now();
    let WatchEvent::Changes { revision, changes } = watch.next().await.unwrap() else {
        panic!("resync");
    };
    let waited = began.elapsed();
    assert!((54..=60).contains(&waited.as_secs()), "{waited:?}");
    assert!(revision > members.revision());
    assert!(
        matches!(&*changes, [Change::Upserted(new), Change::Removed(gone)]
        if new.id.as_str() == "10.0.0.3:80" && gone.id.as_str() == "10.0.0.1:80")
    );
}

#[tokio::test(start_paused = true)]
async fn watch_tells_a_failure_once_and_goes_on_where_it_was() {
    let (source, zone) = source(config(AT_80));
    zone.set("payments.example.", vec![address("10.0.0.1")]);
    let members = source.snapshot(&scope()).await.unwrap();
    let mut watch = source.watch(&scope(), members.revision()).await.unwrap();
    *zone.fails.lock() = Some(ErrorKind::Timeout);
    let error = watch.next().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let quiet = tokio::time::timeout(Duration::from_secs(30), watch.next()).await;
    assert!(quiet.is_err());
    *zone.fails.lock() = None;
    let quiet = tokio::time::timeout(Duration::from_secs(30), watch.next()).await;
    assert!(quiet.is_err(), "nothing has changed: {quiet:?}");
    assert_eq!(ids(&*source).await.unwrap(), ["10.0.0.1:80"]);
}

#[tokio::test(start_paused = true)]
async fn unknown_names_take_bounded_memory_and_watched_ones_stay() {
    let mut few = config(AT_80);
    few.max_services = NonZeroUsize::new(2).unwrap();
    let (source, zone) = source(few);
    zone.set("payments.example.", vec![address("10.0.0.1")]);
    let members = source.snapshot(&scope()).await.unwrap();
    let watch = source.watch(&scope(), members.revision()).await.unwrap();
    let name = |number: u32| Scope::Service(format!("unknown-{number}").parse().unwrap());
    for number in 0..1_000 {
        source.snapshot(&name(number)).await.unwrap();
    }
    let again = source.snapshot(&scope()).await.unwrap();
    assert_eq!(again.revision(), members.revision());
    let _other = source.watch(&name(0), Revision::new(0)).await.unwrap();
    let error = source.snapshot(&name(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    drop(watch);
    assert!(source.snapshot(&name(1)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn watch_of_a_service_that_made_room_is_told_to_resync() {
    let mut one = config(AT_80);
    one.max_services = NonZeroUsize::MIN;
    let (source, zone) = source(one);
    zone.set("payments.example.", vec![address("10.0.0.1")]);
    let before = source.snapshot(&scope()).await.unwrap();
    let other = Scope::Service("other".parse().unwrap());
    source.snapshot(&other).await.unwrap();
    let mut watch = source.watch(&scope(), before.revision()).await.unwrap();
    assert_eq!(watch.next().await.unwrap(), WatchEvent::Resync);
    drop(watch);
    let after = source.snapshot(&scope()).await.unwrap();
    assert!(after.revision() > before.revision());
    assert!(after.instances()[0].incarnation > before.instances()[0].incarnation);
}

#[test]
fn configuration_that_asks_nothing_is_invalid() {
    let wrong: [fn(&mut Config); 6] = [
        |config| config.servers.clear(),
        |config| config.template = "example".to_owned(),
        |config| config.records = Records::Addresses { port: 0 },
        |config| config.ttl_floor = Duration::ZERO,
        |config| config.ttl_floor = config.ttl_ceiling * 2,
        |config| config.negative_ceiling = config.ttl_floor / 2,
    ];
    for (number, wrong) in wrong.iter().enumerate() {
        let mut config = config(AT_80);
        wrong(&mut config);
        let error = DnsSource::new(config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{number}");
    }
}

#[cfg(feature = "test-util")]
mod conformance {
    use super::*;
    use crate::conformance::{Expresses, SOURCE_LAWS, SourceSubject};
    use orchestra_core::Endpoint;

    use crate::instance::Instance;

    fn ip(instance: &Instance) -> IpAddr {
        match instance.endpoint {
            Endpoint::Tcp(address) => address.ip(),
            _ => panic!("{instance:?} is not at an address"),
        }
    }

    fn names() -> [(&'static str, String); 2] {
        ["conformance-a", "conformance-b"].map(|service| (service, format!("{service}.example.")))
    }

    fn addresses(zone: &Zone, members: &[Instance]) {
        for (service, name) in names() {
            let own = members.iter().filter(|it| it.service.as_str() == service);
            zone.set(&name, own.map(|it| Record::Address(ip(it))).collect());
        }
    }

    fn targets(zone: &Zone, members: &[Instance]) {
        for (service, name) in names() {
            let own: Vec<_> = members
                .iter()
                .filter(|it| it.service.as_str() == service)
                .collect();
            let target = |it: &Instance| format!("host-{}.example.", ip(it));
            for it in &own {
                zone.set(&target(it), vec![Record::Address(ip(it))]);
            }
            let srv = |it: &Instance| Srv {
                priority: it.priority.try_into().unwrap(),
                weight: it.weight.try_into().unwrap(),
                port: 9,
                target: target(it),
            };
            zone.set(
                &name,
                own.iter().map(|it| Record::Service(srv(it))).collect(),
            );
        }
    }

    fn subject(records: Records, edit: fn(&Zone, &[Instance])) -> SourceSubject {
        let mut config = config(records);
        config.max_changes = NonZeroUsize::new(16).unwrap();
        let (source, zone) = source(config);
        *zone.ttl.lock() = Duration::from_secs(2);
        let broken = Arc::clone(&zone);
        // The TTL of records, and that of none.
        let lag = Duration::from_secs(11);
        SourceSubject::new(source, lag, move |members| {
            edit(&zone, &members);
            std::future::ready(Ok(()))
        })
        .breaks(move |off| {
            *broken.fails.lock() = off.then_some(ErrorKind::Unavailable);
            std::future::ready(Ok(()))
        })
        .remembers(16)
    }

    fn of_addresses() -> SourceSubject {
        subject(Records::Addresses { port: 9 }, addresses)
    }

    fn of_targets() -> SourceSubject {
        let expresses = Expresses::default().weights().priorities();
        subject(Records::Services, targets).expresses(expresses)
    }

    /// The macro that stamps a test per law is for other crates.
    async fn keeps_all_laws(fresh: fn() -> SourceSubject) {
        for law in SOURCE_LAWS {
            if let Err(violation) = law.check(&fresh()).await {
                panic!("{}: {violation}", law.name());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn address_records_keep_all_laws() {
        keeps_all_laws(of_addresses).await;
    }

    #[tokio::test(start_paused = true)]
    async fn service_records_keep_all_laws() {
        keeps_all_laws(of_targets).await;
    }
}
