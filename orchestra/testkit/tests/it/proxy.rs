use std::io::{self, ErrorKind};
use std::num::NonZeroU64;
use std::time::Duration;

use orchestra_core::Endpoint;
use orchestra_testkit::proxy::{Accept, Config, Delivery, Faults, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(100);

/// Answers each byte with itself, and the end of the stream with `bye`.
async fn echo(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) {
    let mut buffer = [0; 4096];
    while let Ok(count) = stream.read(&mut buffer).await {
        if count == 0 {
            let _reset = stream.write_all(b"bye").await;
            return;
        }
        if stream.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// An echo server on TCP with a proxy before it.
struct Echo {
    proxy: Proxy,
    _server: JoinSet<()>,
}

impl Echo {
    async fn start() -> Self {
        Self::with(Config::new).await
    }

    async fn with(config: impl FnOnce(Endpoint) -> Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Endpoint::from(listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(echo(stream));
            }
        });
        Self {
            proxy: Proxy::start(config(upstream)).await.unwrap(),
            _server: server,
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        connect(&self.proxy).await
    }

    async fn set(&self, faults: Faults) {
        self.proxy.set(faults).await.unwrap();
    }
}

async fn connect(proxy: &Proxy) -> io::Result<TcpStream> {
    match proxy.endpoint() {
        Endpoint::Tcp(address) => TcpStream::connect(address).await,
        other => panic!("{other} is not TCP"),
    }
}

async fn ask(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> io::Result<String> {
    stream.write_all(b"ping").await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn silent(stream: &mut TcpStream) -> bool {
    timeout(MOMENT, stream.read_u8()).await.is_err()
}

#[tokio::test]
async fn without_faults_bytes_and_both_ends_of_the_stream_pass() {
    let echo = Echo::start().await;
    let mut client = echo.connect().await.unwrap();
    assert_eq!(ask(&mut client).await.unwrap(), "ping");

    client.shutdown().await.unwrap();
    let mut rest = String::new();
    timeout(SOON, client.read_to_string(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rest, "bye");

    let traffic = echo.proxy.traffic();
    assert_eq!((traffic.accepted, traffic.reset), (1, 0));
    assert_eq!((traffic.to_upstream, traffic.to_client), (4, 7));
}

#[tokio::test]
async fn a_large_transfer_arrives_whole() {
    let echo = Echo::with(|upstream| Config::new(upstream).seed(3)).await;
    echo.set(Faults::latency(
        Duration::from_micros(200),
        Duration::from_millis(1),
    ))
    .await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|byte| (byte % 251) as u8).collect();
    let (mut reader, mut writer) = echo.connect().await.unwrap().into_split();
    let mut received = vec![0; sent.len()];
    let both =
        async { tokio::try_join!(writer.write_all(&sent), reader.read_exact(&mut received)) };
    timeout(SOON, both).await.unwrap().unwrap();
    assert!(sent == received);
}

#[tokio::test]
async fn unix_sockets_and_tcp_mix_and_the_file_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (inner, outer) = (folder.path().join("inner"), folder.path().join("outer"));
    let listener = UnixListener::bind(&inner).unwrap();
    let mut server = JoinSet::new();
    server.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        echo(stream).await;
    });

    let to_unix = Proxy::start(Endpoint::unix(&inner).unwrap()).await.unwrap();
    let from_unix = Config::new(to_unix.endpoint().clone()).listen(Endpoint::unix(&outer).unwrap());
    let from_unix = Proxy::start(from_unix).await.unwrap();
    let mut client = UnixStream::connect(&outer).await.unwrap();
    assert_eq!(ask(&mut client).await.unwrap(), "ping");

    from_unix.set(Faults::refuse()).await.unwrap();
    assert!(UnixStream::connect(&outer).await.is_err());
    from_unix.set(Faults::none()).await.unwrap();
    UnixStream::connect(&outer).await.unwrap();

    from_unix.set(Faults::reset()).await.unwrap();
    assert_ne!(ask(&mut client).await.ok().as_deref(), Some("ping"));
    from_unix.shutdown().await;
    assert!(!outer.exists());
}

#[tokio::test]
async fn latency_is_added_in_each_direction() {
    let echo = Echo::start().await;
    let mut client = echo.connect().await.unwrap();
    echo.set(Faults::latency(MOMENT, Duration::ZERO)).await;
    let begun = Instant::now();
    assert_eq!(ask(&mut client).await.unwrap(), "ping");
    assert!(begun.elapsed() >= 2 * MOMENT, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn latency_does_not_serialise_what_is_sent_together() {
    let echo = Echo::start().await;
    let mut client = echo.connect().await.unwrap();
    client.set_nodelay(true).unwrap();
    echo.set(Faults::latency(MOMENT, Duration::ZERO)).await;
    let begun = Instant::now();
    for _ in 0..20 {
        client.write_all(b"p").await.unwrap();
        tokio::time::sleep(MOMENT / 50).await;
    }
    client.read_exact(&mut [0; 20]).await.unwrap();
    assert!(begun.elapsed() < 10 * MOMENT, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn bandwidth_bounds_the_bytes_per_second() {
    let echo = Echo::start().await;
    let mut client = echo.connect().await.unwrap();
    let mut faults = Faults::none();
    faults.to_client.bandwidth = NonZeroU64::new(40_000);
    echo.set(faults).await;
    let begun = Instant::now();
    client.write_all(&vec![7; 20_000]).await.unwrap();
    client.read_exact(&mut vec![0; 20_000]).await.unwrap();
    // The last portion may be read while the link is still busy with it.
    assert!(
        begun.elapsed() >= Duration::from_millis(400),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn reset_reaches_open_and_new_connections() {
    let echo = Echo::start().await;
    let mut client = echo.connect().await.unwrap();
    assert_eq!(ask(&mut client).await.unwrap(), "ping");

    echo.set(Faults::reset()).await;
    let error = timeout(SOON, client.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let newcomer = async { echo.connect().await?.read_u8().await };
    assert!(timeout(SOON, newcomer).await.unwrap().is_err());

    echo.set(Faults::none()).await;
    assert_eq!(
        ask(&mut echo.connect().await.unwrap()).await.unwrap(),
        "ping"
    );
}

#[tokio::test]
async fn reset_after_some_bytes_delivers_exactly_those() {
    let echo = Echo::start().await;
    let mut faults = Faults::none();
    faults.to_client.delivery = Delivery::Reset { after: 3 };
    echo.set(faults).await;
    let mut client = echo.connect().await.unwrap();
    let error = timeout(SOON, ask(&mut client)).await.unwrap().unwrap_err();
    assert!(matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof
    ));
    let traffic = echo.proxy.traffic();
    assert_eq!((traffic.to_upstream, traffic.to_client), (4, 3));
}

#[tokio::test]
async fn reset_connections_spares_those_to_come() {
    let echo = Echo::start().await;
    let mut client = echo.connect().await.unwrap();
    assert_eq!(ask(&mut client).await.unwrap(), "ping");
    echo.proxy.reset_connections();
    assert!(timeout(SOON, client.read_u8()).await.unwrap().is_err());
    assert_eq!(
        ask(&mut echo.connect().await.unwrap()).await.unwrap(),
        "ping"
    );
}

#[tokio::test]
async fn a_partition_holds_bytes_and_delivers_them_when_healed() {
    let echo = Echo::start().await;
    let mut client = echo.connect().await.unwrap();
    assert_eq!(ask(&mut client).await.unwrap(), "ping");

    echo.set(Faults::partition()).await;
    client.write_all(b"held").await.unwrap();
    let mut newcomer = echo.connect().await.unwrap();
    newcomer.write_all(b"also").await.unwrap();
    assert!(silent(&mut client).await && silent(&mut newcomer).await);

    echo.set(Faults::none()).await;
    let mut answer = [0; 4];
    timeout(SOON, client.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"held");
    timeout(SOON, newcomer.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"also");
}

#[tokio::test]
async fn a_partition_holds_the_end_of_the_stream_too() {
    let echo = Echo::start().await;
    let mut client = echo.connect().await.unwrap();
    assert_eq!(ask(&mut client).await.unwrap(), "ping");
    echo.set(Faults::partition()).await;
    client.shutdown().await.unwrap();
    assert!(silent(&mut client).await);

    echo.set(Faults::none()).await;
    let mut rest = String::new();
    timeout(SOON, client.read_to_string(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rest, "bye");
}

#[tokio::test]
async fn a_partition_of_one_direction_leaves_the_other() {
    let echo = Echo::start().await;
    let mut client = echo.connect().await.unwrap();
    assert_eq!(ask(&mut client).await.unwrap(), "ping");
    let mut faults = Faults::none();
    faults.to_client.delivery = Delivery::Hold;
    echo.set(faults).await;
    client.write_all(b"ping").await.unwrap();
    assert!(silent(&mut client).await);
    let traffic = echo.proxy.traffic();
    assert_eq!((traffic.to_upstream, traffic.to_client), (8, 4));
}

#[tokio::test]
async fn a_black_hole_swallows_and_a_stream_with_a_hole_is_never_continued() {
    let echo = Echo::start().await;
    let mut client = echo.connect().await.unwrap();
    assert_eq!(ask(&mut client).await.unwrap(), "ping");

    echo.set(Faults::black_hole()).await;
    client.write_all(b"lost").await.unwrap();
    assert!(silent(&mut client).await);
    assert_eq!(echo.proxy.traffic().swallowed, 4);

    echo.set(Faults::none()).await;
    let error = timeout(SOON, ask(&mut client)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(
        ask(&mut echo.connect().await.unwrap()).await.unwrap(),
        "ping"
    );
}

#[tokio::test]
async fn half_close_ends_one_direction_of_an_idle_connection() {
    let echo = Echo::start().await;
    let mut client = echo.connect().await.unwrap();
    assert_eq!(ask(&mut client).await.unwrap(), "ping");

    echo.set(Faults::half_close()).await;
    assert_eq!(
        timeout(SOON, client.read(&mut [0; 4]))
            .await
            .unwrap()
            .unwrap(),
        0
    );
    client.write_all(b"still heard").await.unwrap();
    let heard = async {
        while echo.proxy.traffic().to_upstream < 15 {
            tokio::time::sleep(MOMENT / 50).await;
        }
    };
    timeout(SOON, heard).await.unwrap();
    assert_eq!(echo.proxy.traffic().to_client, 4);
}

#[tokio::test]
async fn refusal_is_in_force_when_set_returns_and_leaves_open_connections() {
    let echo = Echo::start().await;
    let mut open = echo.connect().await.unwrap();
    assert_eq!(ask(&mut open).await.unwrap(), "ping");
    for _ in 0..20 {
        echo.set(Faults::refuse()).await;
        let error = echo.connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        echo.set(Faults::none()).await;
        assert_eq!(
            ask(&mut echo.connect().await.unwrap()).await.unwrap(),
            "ping"
        );
    }
    assert_eq!(ask(&mut open).await.unwrap(), "ping");
}

#[tokio::test]
async fn an_address_taken_during_a_refusal_is_reported() {
    let echo = Echo::start().await;
    echo.set(Faults::refuse()).await;
    let squatter = TcpListener::bind(echo.proxy.endpoint().to_string())
        .await
        .unwrap();
    let error = echo.proxy.set(Faults::none()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(
        error
            .to_string()
            .contains(&echo.proxy.endpoint().to_string())
    );

    drop(squatter);
    echo.set(Faults::none()).await;
    assert_eq!(
        ask(&mut echo.connect().await.unwrap()).await.unwrap(),
        "ping"
    );
}

#[tokio::test]
async fn an_address_in_use_is_named_at_start() {
    let echo = Echo::start().await;
    let taken = echo.proxy.endpoint().clone();
    let config = Config::new(taken.clone()).listen(taken.clone());
    let error = Proxy::start(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
}

#[tokio::test]
async fn an_upstream_that_is_not_there_resets_the_client() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = Endpoint::from(nobody.local_addr().unwrap());
    drop(nobody);
    let proxy = Proxy::start(upstream).await.unwrap();
    let mut client = connect(&proxy).await.unwrap();
    assert!(timeout(SOON, client.read_u8()).await.unwrap().is_err());
    assert_eq!(proxy.traffic().unreachable, 1);
}

#[tokio::test]
async fn a_script_is_played_step_by_step_and_its_last_step_stays() {
    let echo = Echo::start().await;
    let script = [
        (Duration::ZERO, Faults::refuse()),
        (2 * MOMENT, Faults::none()),
        (2 * MOMENT, Faults::partition()),
    ];
    let observed = async {
        tokio::time::sleep(MOMENT).await;
        let first = echo.proxy.faults();
        tokio::time::sleep(2 * MOMENT).await;
        [first, echo.proxy.faults()]
    };
    let (played, observed) = tokio::join!(echo.proxy.play(script), observed);
    played.unwrap();
    assert_eq!(observed, [Faults::refuse(), Faults::none()]);
    assert_eq!(observed[0].accept, Accept::Refuse);
    assert_eq!(echo.proxy.faults(), Faults::partition());
}

#[tokio::test]
async fn the_same_seed_draws_the_same_jitter() {
    async fn first_delay(seed: u64) -> Duration {
        let echo = Echo::with(|upstream| Config::new(upstream).seed(seed)).await;
        echo.set(Faults::latency(Duration::ZERO, 4 * MOMENT)).await;
        let mut client = echo.connect().await.unwrap();
        let begun = Instant::now();
        assert_eq!(ask(&mut client).await.unwrap(), "ping");
        begun.elapsed()
    }
    let (mut short, mut long) = (first_delay(0).await, first_delay(0).await);
    assert!(short.abs_diff(long) < MOMENT, "{short:?} and {long:?}");
    for seed in 1..6 {
        let delay = first_delay(seed).await;
        (short, long) = (short.min(delay), long.max(delay));
    }
    assert!(long > short + MOMENT / 2, "{short:?} to {long:?}");
}

#[tokio::test]
async fn shutdown_cuts_what_is_open_and_stops_listening() {
    let echo = Echo::start().await;
    let mut client = echo.connect().await.unwrap();
    assert_eq!(ask(&mut client).await.unwrap(), "ping");
    assert_eq!(echo.proxy.traffic().open, 1);
    let endpoint = echo.proxy.endpoint().to_string();
    timeout(SOON, echo.proxy.shutdown()).await.unwrap();
    assert_ne!(ask(&mut client).await.ok().as_deref(), Some("ping"));
    assert!(TcpStream::connect(endpoint).await.is_err());
}
