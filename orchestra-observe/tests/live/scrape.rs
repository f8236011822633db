//! A Prometheus server scrapes us, and its own query interface tells what it read.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::routing::get;
use orchestra_observe::{Format, export};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{AWKWARD, program, registry};

struct Scraped {
    server: SocketAddr,
    /// The content types that we answered with at `/metrics`.
    answered: Arc<Mutex<Vec<String>>>,
    _prometheus: Child,
    _target: JoinSet<()>,
    _data: tempfile::TempDir,
}

async fn target(answered: Arc<Mutex<Vec<String>>>) -> (SocketAddr, JoinSet<()>) {
    let text = || async {
        let page = Format::Text.render(&registry().snapshot());
        ([(CONTENT_TYPE, Format::Text.content_type())], page).into_response()
    };
    let note = move |request: Request, next: Next| {
        let answered = Arc::clone(&answered);
        async move {
            let answer = next.run(request).await;
            let kind = answer.headers().get(CONTENT_TYPE);
            let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            answered.lock().push(kind.to_owned());
            answer
        }
    };
    let app = export::http::router(registry())
        .layer(middleware::from_fn(note))
        .merge(Router::new().route("/text", get(text)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    (address, tasks)
}

fn configuration(target: SocketAddr) -> String {
    let mut text = "global: {scrape_interval: 1s}\nscrape_configs:\n".to_owned();
    for (job, path) in [("open", "/metrics"), ("text", "/text")] {
        writeln!(
            text,
            "  - {{job_name: {job}, metrics_path: {path}, \
             static_configs: [{{targets: ['{target}']}}]}}"
        )
        .unwrap();
    }
    text
}

async fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

fn prometheus(data: &Path, server: SocketAddr) -> Child {
    Command::new(program("ORCH_TEST_PROM_BIN"))
        .arg(format!(
            "--config.file={}",
            data.join("prometheus.yml").display()
        ))
        .arg(format!(
            "--storage.tsdb.path={}",
            data.join("tsdb").display()
        ))
        .arg(format!("--web.listen-address={server}"))
        .arg("--log.level=error")
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn scraped() -> Scraped {
    let answered = Arc::default();
    let (address, tasks) = target(Arc::clone(&answered)).await;
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("prometheus.yml"), configuration(address)).unwrap();
    let server = free_address().await;
    let scraped = Scraped {
        server,
        answered,
        _prometheus: prometheus(data.path(), server),
        _target: tasks,
        _data: data,
    };
    let up = async {
        while scraped.numbers("up == 1").await.len() < 2 {
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(Duration::from_secs(60), up)
        .await
        .expect("both jobs were scraped");
    scraped
}

impl Scraped {
    /// The answer of the query interface; nothing while the server is not up.
    async fn ask(&self, query: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(self.server).await.ok()?;
        let query = encoded(query);
        // HTTP/1.0: the body is neither chunked nor followed by anything.
        let request = format!("GET /api/v1/query?query={query} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok()
    }

    /// The values of the result, as Prometheus prints them.
    async fn numbers(&self, query: &str) -> Vec<String> {
        let answer = self.ask(query).await.unwrap_or_default();
        let result = answer["data"]["result"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let values = result
            .iter()
            .map(|series| series["value"][1].as_str().unwrap().to_owned());
        values.collect()
    }
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        write!(out, "%{byte:02X}").unwrap();
    }
    out
}

#[tokio::test]
async fn prometheus_reads_what_we_counted_in_both_formats() {
    let scraped = scraped().await;
    let same = [
        ("shop_calls_total{peer=\"plain\"}", "7"),
        ("shop_calls_total{peer=\"\"}", "13"),
        ("sum by (job) (shop_calls_total)", "31"),
        ("shop_level{of=\"nan\"}", "NaN"),
        ("shop_level{of=\"inf\"}", "+Inf"),
        ("shop_level{of=\"minus_inf\"}", "-Inf"),
        ("shop_level{of=\"tiny\"}", "5e-324"),
        ("shop_level{of=\"huge\"}", "1.7976931348623157e+308"),
        ("shop_latency_seconds_count{route=\"/orders\"}", "100"),
        ("shop_latency_seconds_count{route=\"/idle\"}", "0"),
        (
            "round(shop_latency_seconds_sum{route=\"/orders\"}, 0.001)",
            "50.5",
        ),
        (
            "shop_latency_seconds_bucket{route=\"/orders\",le=\"+Inf\"}",
            "100",
        ),
        (
            "histogram_quantile(0.5, shop_latency_seconds_bucket{route=\"/orders\"})",
            "0.5",
        ),
        (
            "orchestra_observe_rejected_observations_total{metric=\"shop_size_bytes\"}",
            "1",
        ),
    ];
    for (query, expected) in same {
        assert_eq!(
            scraped.numbers(query).await,
            [expected, expected],
            "{query}"
        );
    }
    let escaped = serde_json::to_string(AWKWARD).unwrap();
    let query = format!("shop_calls_total{{peer={escaped}}}");
    assert_eq!(scraped.numbers(&query).await, ["11", "11"], "{query}");

    let answered = scraped.answered.lock().clone();
    assert!(
        answered
            .iter()
            .all(|kind| kind == Format::OpenMetrics.content_type())
    );
}
