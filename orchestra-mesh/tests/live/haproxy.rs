//! haproxy in front of our gateway, nginx behind it.
//!
//! haproxy forwards to one port; the tests take turns at it.

use orchestra_core::Endpoint;
use orchestra_mesh::connect::Protocol;
use orchestra_testkit::Proxy;
use orchestra_testkit::proxy::Config;
use tokio::sync::{Mutex, MutexGuard};

use crate::site::{Site, any_port};
use crate::tools::{connects, curl, h2load};
use crate::{Checked, Failure, Seen, address, nginx, variable};

/// The ways into haproxy, with curl's word for what is spoken on them; it speaks the same with us.
const BOTH: [(&str, &str); 2] = [
    ("ORCH_TEST_HAPROXY", "--http1.1"),
    ("ORCH_TEST_HAPROXY_H2", "--http2-prior-knowledge"),
];

static PORT: Mutex<()> = Mutex::const_new(());

/// The port that haproxy forwards to, for this test alone.
async fn port() -> Result<(MutexGuard<'static, ()>, Endpoint), Failure> {
    let turn = PORT.lock().await;
    let port: u16 = variable("ORCH_TEST_GATEWAY_PORT")?.parse()?;
    Ok((turn, Endpoint::Tcp(([127, 0, 0, 1], port).into())))
}

fn url(variable: &str, path: &str) -> Result<String, Failure> {
    Ok(format!("http://{}{path}", address(variable)?))
}

/// haproxy talks to us from an address of its own, 127.0.0.3.
#[tokio::test]
async fn the_address_behind_us_is_that_of_haproxy_and_not_what_anybody_claims() -> Checked {
    let (_turn, port) = port().await?;
    let site = Site::open(port, nginx()?, Protocol::Http1).await?;
    for (front, flag) in BOTH {
        let url = url(front, "/seen")?;
        let claim = "x-forwarded-for: 6.6.6.6";
        let answer = curl(&[flag, "--interface", "127.0.0.2", "-H", claim, &url]).await?;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = Seen(answer.text().to_owned());
        assert_eq!(seen.of("forwarded-for"), Some("127.0.0.3"), "{seen:?}");
        assert_eq!(seen.of("hop"), Some(""), "{seen:?}");
    }
    site.close().await;
    Ok(())
}

#[tokio::test]
async fn connections_are_kept_on_every_hop() -> Checked {
    let (_turn, port) = port().await?;
    let site = Site::open(any_port(), nginx()?, Protocol::Http1).await?;
    let counter = Proxy::start(Config::new(site.endpoint()).listen(port)).await?;
    let seen = url("ORCH_TEST_HAPROXY", "/seen")?;
    let asked: Vec<&str> = vec![&seen; 20];
    let made = connects(&asked).await?;
    assert_eq!(made.iter().filter(|count| *count == "1").count(), 1);
    let last = Seen(curl(&[&seen]).await?.text().to_owned());
    assert_eq!(last.of("connection-requests"), Some("21"), "to nginx");
    assert_eq!(counter.traffic().accepted, 1, "from haproxy to us");
    counter.shutdown().await;
    site.close().await;
    Ok(())
}

async fn load(front: &str, arguments: &[&str]) -> Checked {
    let (_turn, port) = port().await?;
    let site = Site::open(port, nginx()?, Protocol::Http1).await?;
    let url = url(front, "/ok")?;
    h2load(1000, &[arguments, &[&url]].concat()).await?;
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_pass_from_haproxy_by_http1() -> Checked {
    load("ORCH_TEST_HAPROXY", &["--h1", "-c", "8"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_pass_from_haproxy_by_http2() -> Checked {
    load("ORCH_TEST_HAPROXY_H2", &["-c", "4", "-m", "16"]).await
}

#[tokio::test]
async fn haproxy_finds_us_again_after_a_restart() -> Checked {
    let (_turn, port) = port().await?;
    for (front, flag) in BOTH {
        let url = url(front, "/ok")?;
        for _ in 0..3 {
            let site = Site::open(port.clone(), nginx()?, Protocol::Http1).await?;
            assert_eq!(curl(&[flag, &url]).await?.status, 200);
            site.close().await;
            assert_eq!(curl(&[flag, &url]).await?.status, 503);
        }
    }
    Ok(())
}
