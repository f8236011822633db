//! nginx: consistent hashing (ketama) and smooth weighted round robin.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use orchestra_core::Monotonic;
use orchestra_discovery::{KetamaHash, PickContext, SmoothRoundRobin, hash};

use super::proxy::Proxy;
use super::upstream::Upstreams;
use super::{by_hash, counted, keys, picked, resolver};
use crate::variable;

/// One process, so that there is one order of turns.
fn command(directory: &Path, upstreams: &Upstreams, weights: &[u32]) -> Command {
    let mut servers = String::new();
    for (port, weight) in upstreams.ports().iter().zip(weights) {
        writeln!(servers, "server 127.0.0.1:{port} weight={weight};").unwrap();
    }
    let path = directory.display();
    let mut paths = String::new();
    for name in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(paths, "{name}_temp_path {path}/{name};").unwrap();
    }
    let config = format!(
        "daemon off; master_process off; pid {path}/pid; error_log {path}/log;
         events {{ worker_connections 512; }}
         http {{ access_log off; {paths}
           upstream hashed {{ hash $http_x_key consistent; {servers} }}
           upstream turns {{ {servers} }}
           server {{ listen unix:{path}/socket; keepalive_requests 100000;
             location /hashed {{ proxy_pass http://hashed; }}
             location /turns {{ proxy_pass http://turns; }} }} }}"
    );
    let file = directory.join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(variable("ORCH_TEST_NGINX_BIN"));
    command
        .arg("-c")
        .arg(file)
        .arg("-e")
        .arg(directory.join("log"));
    command
}

#[tokio::test]
async fn ketama_picks_are_nginxs() {
    for weights in [&[1; 9][..], &[1, 2, 3, 1, 10, 1, 4]] {
        let upstreams = Upstreams::start(weights.len()).await;
        let proxy = Proxy::start(|directory| command(directory, &upstreams, weights)).await;
        let mut client = proxy.client("socket").await;
        let ours = resolver(KetamaHash::default(), &upstreams, weights);
        let mut theirs = Vec::new();
        for key in keys(1_500) {
            let port = client.port("/hashed", &key).await;
            let hash = hash::ketama::of(key.as_bytes());
            assert_eq!(by_hash(&ours, hash.into()), port, "{key}");
            theirs.push(port);
        }
        assert_eq!(counted(theirs).len(), weights.len());
    }
}

#[tokio::test]
async fn turns_by_weight_are_nginxs() {
    for weights in [&[5, 1, 1][..], &[1, 1, 1, 1], &[7, 3, 2, 1, 1, 4]] {
        let upstreams = Upstreams::start(weights.len()).await;
        let proxy = Proxy::start(|directory| command(directory, &upstreams, weights)).await;
        let mut client = proxy.client("socket").await;
        let ours = resolver(SmoothRoundRobin, &upstreams, weights);
        for turn in 0..300 {
            let port = client.port("/turns", "").await;
            let context = PickContext::new(Monotonic::ZERO, turn);
            assert_eq!(picked(&ours, &context), port, "turn {turn} of {weights:?}");
        }
    }
}
