//! A shop under test.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request, StatusCode};
use orchestra_testkit::Process;
use orchestra_testkit::process::find_matching;
use serde_json::Value;

use crate::load::{Http, http};

pub struct Shop {
    pub process: Process,
    pub gateway: SocketAddr,
    pub data: PathBuf,
    pub client: Http,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

/// The example's binary: built by a `cargo test` that is not limited to single targets.
pub fn binary() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let binary = tests
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/shop");
    assert!(
        binary.exists(),
        "{} is not built: run `cargo build --examples`",
        binary.display()
    );
    binary
}

pub fn command(data: &Path, arguments: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(binary());
    command
        .args(["--serve", "--port", "0", "--data"])
        .arg(data)
        .args(arguments);
    command
}

impl Shop {
    /// Starts the shop on `data` and waits until it serves.
    pub async fn open(data: &Path, arguments: &[&str]) -> Self {
        let process = Process::spawn(command(data, arguments)).unwrap();
        let prefix = "gateway http://";
        let line = process
            .wait_for_line(|line| line.starts_with(prefix), Duration::from_secs(30))
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", transcript(&process)));
        let gateway = line.text()[prefix.len()..].trim().parse().unwrap();
        process
            .wait_for_line(|line| line == "ready", Duration::from_secs(30))
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", transcript(&process)));
        Self {
            process,
            gateway,
            data: data.to_owned(),
            client: http(),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(self.url(path)).body(Full::default()).unwrap())
            .await
    }

    pub async fn post(&self, body: impl Into<String>) -> Answer {
        let request = Request::post(self.url("/orders"))
            .header("content-type", "application/json")
            .body(Full::from(body.into()));
        self.send(request.unwrap()).await
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let limit = Duration::from_secs(30);
        let answer = tokio::time::timeout(limit, self.client.request(request))
            .await
            .unwrap()
            .unwrap();
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway)
    }

    /// The processes of the services, by the directory that they were given.
    pub fn services(&self) -> Vec<u32> {
        services_on(&self.data)
    }

    pub async fn close(mut self) {
        self.process.interrupt().unwrap();
        let status = self.process.wait().await.unwrap();
        assert!(status.success(), "{status}\n{}", transcript(&self.process));
        assert_eq!(
            services_on(&self.data),
            [0; 0],
            "services outlived the shop"
        );
    }
}

pub fn services_on(data: &Path) -> Vec<u32> {
    find_matching(&format!("SHOP_DATA={}", data.display())).unwrap()
}

pub fn transcript(process: &Process) -> String {
    process
        .lines()
        .iter()
        .map(|line| format!("{}\n", line.text()))
        .collect()
}

/// Waits for `condition`, at most `limit`.
pub async fn eventually(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let begin = tokio::time::Instant::now();
    while !condition().await {
        assert!(begin.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
