//! An nginx of the test's own, which is killed and frozen.

use std::error::Error as _;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Backoff, Endpoint, Silent};
use orchestra_mesh::connect::Protocol;
use orchestra_mesh::error::Kind;
use orchestra_mesh::{Client, Error, Policy, breaker, retry};
use orchestra_testkit::Process;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::{Checked, Failure, GRACE, client, get, nginx, quick, targets, text, variable};

struct Nginx {
    directory: TempDir,
    address: SocketAddr,
    process: Process,
}

fn configuration(directory: &str, address: SocketAddr) -> String {
    let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {directory}/{name};"))
        .concat();
    format!(
        "daemon off; master_process off; pid {directory}/pid; error_log stderr; events {{}}
         http {{ access_log off; {places}
           server {{ listen {address}; location = /ok {{ return 200 own; }} }} }}"
    )
}

async fn run(directory: &TempDir, address: SocketAddr) -> Result<Process, Failure> {
    let mut command = Command::new(variable("ORCH_TEST_NGINX_BIN")?);
    command
        .args(["-e", "stderr", "-c"])
        .arg(directory.path().join("conf"));
    let process = Process::spawn(command)?;
    let connecting = async {
        while TcpStream::connect(address).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let late = |_| format!("nginx did not start: {:?}", process.lines());
    timeout(GRACE, connecting).await.map_err(late)?;
    Ok(process)
}

impl Nginx {
    async fn start() -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let path = directory.path().to_str().ok_or("a path that is no text")?;
        std::fs::write(directory.path().join("conf"), configuration(path, address))?;
        let process = run(&directory, address).await?;
        Ok(Self {
            directory,
            address,
            process,
        })
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp(self.address)
    }

    async fn kill(&mut self) -> Checked {
        self.process.kill()?;
        self.process.wait_within(GRACE).await?;
        Ok(())
    }

    async fn start_again(&mut self) -> Checked {
        self.process = run(&self.directory, self.address).await?;
        Ok(())
    }
}

async fn failure_of(client: &Client) -> Result<Error, Failure> {
    match client.send(get("/ok")?).await {
        Ok(response) => Err(format!("answered with {}", response.status()).into()),
        Err(error) => Ok(error),
    }
}

async fn passes(client: &Client) -> Checked {
    assert_eq!(text(client.send(get("/ok")?).await?).await?, "own");
    Ok(())
}

#[tokio::test]
async fn while_nginx_is_dead_calls_fail_to_connect_and_afterwards_they_pass() -> Checked {
    let mut nginx = Nginx::start().await?;
    let client = client(nginx.endpoint(), Protocol::Http1)?;
    passes(&client).await?;
    nginx.kill().await?;
    for _ in 0..3 {
        let error = failure_of(&client).await?;
        assert_eq!(error.kind(), Kind::Connect);
        assert!(error.is_retryable());
        let cause = error
            .source()
            .and_then(|source| source.downcast_ref::<std::io::Error>());
        let refused = std::io::ErrorKind::ConnectionRefused;
        assert_eq!(cause.map(std::io::Error::kind), Some(refused), "{error:?}");
    }
    nginx.start_again().await?;
    passes(&client).await?;
    client.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_frozen_nginx_costs_an_attempt_its_time_and_no_more() -> Checked {
    let nginx = Nginx::start().await?;
    let policy = Policy::default()
        .attempt_timeout(Duration::from_millis(150))
        .retry(retry::Policy::never());
    let client = Client::builder("nginx".parse()?, Arc::new(targets([nginx.endpoint()])?))
        .policy(policy)
        .build()?;
    passes(&client).await?;
    nginx.process.pause()?;
    for _ in 0..2 {
        let failing = timeout(Duration::from_secs(2), failure_of(&client));
        assert_eq!(failing.await??.kind(), Kind::AttemptTimeout);
    }
    nginx.process.resume()?;
    passes(&client).await?;
    client.shutdown().await;
    Ok(())
}

/// Two instances, one of which is killed while calls are under way, and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_lost_while_one_of_two_is_killed_and_returns() -> Checked {
    let mut own = Nginx::start().await?;
    let config = breaker::Config::default().open_wait(Backoff::fixed(Duration::from_millis(200)));
    let both = targets([nginx()?, own.endpoint()])?.breakers(config, &(Arc::new(Silent) as _))?;
    let client = Client::builder("nginx".parse()?, Arc::new(both))
        .policy(quick())
        .build()?;
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let client = client.clone();
        callers.spawn(async move {
            let mut own = Vec::new();
            for _ in 0..250 {
                let response = client.send(get("/ok")?).await?;
                assert_eq!(response.status(), 200);
                own.push(text(response).await? == "own");
                sleep(Duration::from_millis(2)).await;
            }
            Ok::<_, Failure>(own)
        });
    }
    sleep(Duration::from_millis(100)).await;
    own.kill().await?;
    sleep(Duration::from_millis(100)).await;
    own.start_again().await?;
    while let Some(answers) = callers.join_next().await {
        let answers = answers??;
        assert!(answers[..10].contains(&true), "it answered before");
        assert!(answers[200..].contains(&true), "it answers again");
    }
    client.shutdown().await;
    Ok(())
}
