//! Only the gateway reaches a service.

use std::time::Duration;

use hyper::StatusCode;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::running::Shop;

async fn call(socket: &std::path::Path, token: Option<&str>) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let token = token
        .map(|token| format!("authorization: Bearer {token}\r\n"))
        .unwrap_or_default();
    let request = format!(
        "POST /steps/charge HTTP/1.1\r\nhost: payment\r\nx-saga-op: action\r\n{token}\
         content-length: 2\r\nconnection: close\r\n\r\n{{}}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer
}

#[tokio::test]
async fn a_caller_on_the_socket_without_the_runs_token_is_refused() {
    let data = TempDir::new().unwrap();
    let shop = Shop::open(data.path(), &[]).await;
    let mut tried = 0;
    for pid in shop.services() {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        let variables = String::from_utf8_lossy(&environment).into_owned();
        let value = |name: &str| {
            variables
                .split('\0')
                .find_map(|v| v.strip_prefix(name)?.strip_prefix('='))
                .unwrap()
                .to_owned()
        };
        let socket = value("SHOP_SOCKET");
        for token in [None, Some(""), Some("guess")] {
            let answer = call(socket.as_ref(), token).await;
            assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        }
        let answer = call(socket.as_ref(), Some(&value("SHOP_TOKEN"))).await;
        assert!(
            answer.starts_with("HTTP/1.1 400"),
            "the token opens the door: {answer}"
        );
        tried += 1;
    }
    assert_eq!(tried, 12, "six services with two replicas each");
    shop.close().await;
}

#[tokio::test]
async fn the_gateway_does_not_pass_on_the_services_inner_routes() {
    let data = TempDir::new().unwrap();
    let shop = Shop::open(data.path(), &[]).await;
    for path in [
        "/steps/charge",
        "/payment/steps/charge",
        "/users/u-1/recommendations/../../steps/charge",
        "/users/u-1",
        "/users/u-1/../../../steps/charge",
        "/bought-by/u-1",
        "//steps/charge",
    ] {
        let answer = shop.get(path).await;
        let refused = [StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST];
        assert!(
            refused.contains(&answer.status),
            "{path}: {} {}",
            answer.status,
            answer.body
        );
    }
    shop.close().await;
}
