//! Our gateway in front of nginx; curl and h2load in front of our gateway.

use orchestra_core::Endpoint;
use orchestra_mesh::connect::Protocol;

use crate::client::content;
use crate::site::{Site, any_port};
use crate::tools::{connects, curl, h2load};
use crate::{Checked, Failure, Seen, nginx, nginx_http2};

/// curl's word for each protocol, and what it calls it.
const BOTH: [(&str, &str); 2] = [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")];

async fn site() -> Result<Site, Failure> {
    Site::open(any_port(), nginx()?, Protocol::Http1).await
}

#[tokio::test]
async fn curl_gets_what_nginx_says_over_both_protocols() -> Checked {
    let site = site().await?;
    for (flag, version) in BOTH {
        let answer = curl(&[flag, &site.url("/ok")]).await?;
        assert_eq!((answer.status, &*answer.version), (200, version));
        assert_eq!(answer.text(), "ok\n");
        assert_eq!(answer.header("content-length"), Some("3"));
        assert!(answer.header("x-request-id").is_some());
        let failed = curl(&[flag, &site.url("/fail")]).await?;
        assert_eq!((failed.status, failed.text()), (503, "attempt 4\n"));
    }
    site.close().await;
    Ok(())
}

#[tokio::test]
async fn curl_keeps_its_connection() -> Checked {
    let site = site().await?;
    let (ok, seen) = (site.url("/ok"), site.url("/seen"));
    assert_eq!(connects(&[&ok, &seen, &ok]).await?, ["1", "0", "0"]);
    site.close().await;
    Ok(())
}

#[tokio::test]
async fn curl_is_told_in_json_that_there_is_no_route() -> Checked {
    let site = site().await?;
    for (flag, _) in BOTH {
        let id = "x-request-id: asked-1";
        let answer = curl(&[flag, "-H", id, &site.url("/nowhere")]).await?;
        assert_eq!(answer.status, 404);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(
            answer.text(),
            r#"{"error":"no_route","message":"no route matches","request_id":"asked-1"}"#
        );
    }
    site.close().await;
    Ok(())
}

#[tokio::test]
async fn curl_gets_heads_alone_for_head() -> Checked {
    let site = site().await?;
    let (ok, nowhere) = (site.url("/ok"), site.url("/nowhere"));
    for (flag, _) in BOTH {
        for (url, status) in [(&ok, 200), (&nowhere, 404)] {
            let answer = curl(&[flag, "--head", url]).await?;
            assert_eq!(answer.status, status);
            let length = answer.header("content-length").map(str::parse::<usize>);
            assert!(length.transpose()?.is_some_and(|length| length > 0));
        }
    }
    // A body after the head would spoil the connection for the next request.
    assert_eq!(
        connects(&["--head", &nowhere, &ok, &ok]).await?,
        ["1", "0", "0"]
    );
    site.close().await;
    Ok(())
}

#[tokio::test]
async fn nginx_sees_curl_through_us_without_what_outsiders_may_not_say() -> Checked {
    let site = site().await?;
    for (flag, _) in BOTH {
        let mut arguments = vec![flag];
        for header in [
            "host: shop.example",
            "x-forwarded-for: 6.6.6.6",
            "x-saga-id: 1",
            "x-envoy-attempt-count: 7",
            "x-custom: kept",
        ] {
            arguments.extend(["-H", header]);
        }
        let url = site.url("/seen");
        arguments.push(&url);
        let answer = curl(&arguments).await?;
        let seen = Seen(answer.text().to_owned());
        let expected = [
            ("host", "shop.example"),
            ("forwarded-for", "127.0.0.1"),
            ("forwarded-proto", "http"),
            ("saga", ""),
            ("attempt", "1"),
            ("custom", "kept"),
            ("hop", ""),
            ("request-id", answer.header("x-request-id").unwrap_or("-")),
        ];
        for (name, value) in expected {
            assert_eq!(seen.of(name), Some(value), "{name}: {seen:?}");
        }
        assert!(
            seen.of("traceparent")
                .is_some_and(|trace| trace.starts_with("00-"))
        );
    }
    site.close().await;
    Ok(())
}

/// A length beside a transfer coding means nothing (RFC 9112, 6.3), and nginx must not hear of it.
#[tokio::test]
async fn a_length_beside_a_transfer_coding_does_not_reach_nginx() -> Checked {
    let site = site().await?;
    let both = [
        "-v",
        "--http1.1",
        "-H",
        "Content-Length: 3",
        "-H",
        "Transfer-Encoding: chunked",
    ];
    let (seen, file) = (site.url("/seen"), site.url("/files/two-lengths"));
    let post = [&both[..], &["--data-binary", "abcdefgh", &seen]].concat();
    let answer = curl(&post).await?;
    assert!(
        answer.told.contains("> Content-Length: 3"),
        "{}",
        answer.told
    );
    assert!(answer.told.contains("> Transfer-Encoding: chunked"));
    let seen = Seen(answer.text().to_owned());
    assert_eq!(seen.of("content-length"), Some(""), "{seen:?}");
    assert_eq!(seen.of("transfer-encoding"), Some("chunked"), "{seen:?}");
    let put = [
        &both[..],
        &["-X", "PUT", "--data-binary", "abcdefgh", &file],
    ]
    .concat();
    assert_eq!(curl(&put).await?.status, 201);
    assert_eq!(curl(&[&file]).await?.text(), "abcdefgh");
    assert_eq!(curl(&["-X", "DELETE", &file]).await?.status, 204);
    site.close().await;
    Ok(())
}

#[tokio::test]
async fn a_head_that_is_too_long_is_answered_with_431_and_harms_nobody_else() -> Checked {
    let site = site().await?;
    let long = format!("x-long: {}", "a".repeat(12_000));
    for (flag, _) in BOTH {
        let refused = curl(&[flag, "-H", &long, &site.url("/ok")]).await?;
        assert_eq!(refused.status, 431, "{flag}");
        assert_eq!(curl(&[flag, &site.url("/ok")]).await?.status, 200);
    }
    site.close().await;
    Ok(())
}

#[tokio::test]
async fn curl_stores_and_gets_a_large_body_and_not_one_beyond_the_limit() -> Checked {
    let site = site().await?;
    let directory = tempfile::tempdir()?;
    let (fitting, beyond) = (directory.path().join("fits"), directory.path().join("not"));
    let content = content();
    std::fs::write(&fitting, &content)?;
    std::fs::write(&beyond, vec![1; 6 << 20])?;
    let (fitting, beyond) = (fitting.to_string_lossy(), beyond.to_string_lossy());
    let file = site.url("/files/curl");
    for (flag, _) in BOTH {
        assert_eq!(curl(&[flag, "-T", &fitting, &file]).await?.status, 201);
        let returned = curl(&[flag, &file]).await?;
        assert!(returned.body == content, "the body came back changed");
        assert_eq!(curl(&["-X", "DELETE", &file]).await?.status, 204);
    }
    let refused = curl(&["-T", &beyond, &file]).await?;
    assert_eq!(refused.status, 413);
    assert!(refused.text().contains(r#""error":"body_too_large""#));
    site.close().await;
    Ok(())
}

#[tokio::test]
async fn curl_reaches_us_through_a_unix_socket() -> Checked {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("gateway.sock");
    let listen = Endpoint::Unix(path.as_path().into());
    let site = Site::open(listen, nginx()?, Protocol::Http1).await?;
    let path = path.to_string_lossy();
    for (flag, version) in BOTH {
        let answer = curl(&[flag, "--unix-socket", &path, "http://gateway/seen"]).await?;
        assert_eq!((answer.status, &*answer.version), (200, version));
        let seen = Seen(answer.text().to_owned());
        assert_eq!(seen.of("host"), Some("gateway"));
        assert_eq!(seen.of("forwarded-for"), Some(""));
    }
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_are_all_answered_with_http1_behind_us() -> Checked {
    let site = site().await?;
    let url = site.url("/ok");
    h2load(5000, &["-c", "4", "-m", "64", &url]).await?;
    site.close().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_are_all_answered_with_http2_behind_us() -> Checked {
    let site = Site::open(any_port(), nginx_http2()?, Protocol::Http2).await?;
    let url = site.url("/ok");
    h2load(5000, &["-c", "4", "-m", "64", &url]).await?;
    site.close().await;
    Ok(())
}
