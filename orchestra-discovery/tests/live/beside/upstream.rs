//! Servers behind a proxy, each of which says who it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use tokio::task::JoinSet;

/// What one answers, and how often it was asked.
#[derive(Debug)]
struct Upstream {
    port: u16,
    status: AtomicU16,
    asked: AtomicU32,
}

pub(super) struct Upstreams {
    all: Vec<Arc<Upstream>>,
    ports: Vec<u16>,
    _servers: JoinSet<()>,
}

impl Upstreams {
    pub(super) async fn start(count: usize) -> Self {
        let (mut all, mut servers) = (Vec::new(), JoinSet::new());
        for _ in 0..count {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let upstream = Arc::new(Upstream {
                port: listener.local_addr().unwrap().port(),
                status: AtomicU16::new(200),
                asked: AtomicU32::new(0),
            });
            let app = Router::new()
                .fallback(answer)
                .with_state(Arc::clone(&upstream));
            all.push(upstream);
            servers.spawn(async move { axum::serve(listener, app).await.unwrap() });
        }
        Self {
            ports: all.iter().map(|upstream| upstream.port).collect(),
            all,
            _servers: servers,
        }
    }

    pub(super) fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Answers with this status from now on.
    pub(super) fn set_status(&self, number: usize, status: u16) {
        self.all[number].status.store(status, Ordering::SeqCst);
    }

    pub(super) fn asked(&self, number: usize) -> u32 {
        self.all[number].asked.load(Ordering::SeqCst)
    }
}

async fn answer(State(upstream): State<Arc<Upstream>>) -> (StatusCode, String) {
    upstream.asked.fetch_add(1, Ordering::SeqCst);
    let status = upstream.status.load(Ordering::SeqCst);
    (
        StatusCode::from_u16(status).unwrap(),
        upstream.port.to_string(),
    )
}
