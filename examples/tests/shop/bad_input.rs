use hyper::StatusCode;
use tempfile::TempDir;

use crate::running::Shop;

#[tokio::test]
async fn bad_input_gets_a_clear_answer_and_buys_nothing() {
    let data = TempDir::new().unwrap();
    let shop = Shop::open(data.path(), &[]).await;
    let huge = format!(
        r#"{{"user":"u-1","item":"{}","quantity":1}}"#,
        "x".repeat(2 << 20)
    );
    let many = crate::catalogue::MAX_QUANTITY + 1;
    let many = format!(r#"{{"user":"u-1","item":"anvil","quantity":{many}}}"#);
    let cases: [(String, StatusCode, &str); 12] = [
        (many, StatusCode::UNPROCESSABLE_ENTITY, "quantity"),
        ("{".into(), StatusCode::BAD_REQUEST, "EOF"),
        (String::new(), StatusCode::BAD_REQUEST, "EOF"),
        ("[]".into(), StatusCode::BAD_REQUEST, "invalid"),
        (
            r#"{"user":"u-1","item":"anvil"}"#.into(),
            StatusCode::BAD_REQUEST,
            "quantity",
        ),
        (
            r#"{"user":"u-1","item":"anvil","quantity":1,"price":0}"#.into(),
            StatusCode::BAD_REQUEST,
            "price",
        ),
        (
            r#"{"user":"u-1","item":"anvil","quantity":"2"}"#.into(),
            StatusCode::BAD_REQUEST,
            "expected u32",
        ),
        (
            r#"{"user":"u-1","item":"anvil","quantity":0}"#.into(),
            StatusCode::UNPROCESSABLE_ENTITY,
            "quantity",
        ),
        (
            r#"{"user":"u-1","item":"anvil","quantity":-3}"#.into(),
            StatusCode::BAD_REQUEST,
            "-3",
        ),
        (
            r#"{"user":"nobody","item":"anvil","quantity":1}"#.into(),
            StatusCode::NOT_FOUND,
            "nobody",
        ),
        (
            r#"{"user":"u-1","item":"unicorn","quantity":1}"#.into(),
            StatusCode::UNPROCESSABLE_ENTITY,
            "unicorn",
        ),
        (huge, StatusCode::PAYLOAD_TOO_LARGE, "large"),
    ];
    for (body, status, word) in cases {
        let shown: String = body.chars().take(80).collect();
        let answer = shop.post(body).await;
        assert_eq!(answer.status, status, "{shown}: {}", answer.body);
        let text = answer.body.to_string();
        assert!(text.contains(word), "{shown}: {text}");
    }
    assert_eq!(
        shop.get("/orders/not-an-id").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(shop.get("/nowhere").await.status, StatusCode::NOT_FOUND);
    shop.close().await;
    let books = crate::audit::Books::read(data.path()).unwrap();
    assert!(books.goods_conserved() && books.money_conserved());
    assert!(books.reserved.is_empty() && books.charged.is_empty() && books.ordered.is_empty());
}

#[tokio::test]
async fn a_participant_that_is_down_gives_503_and_the_order_is_undone() {
    let data = TempDir::new().unwrap();
    let shop = Shop::open(data.path(), &["--replicas", "payment=0"]).await;
    let answer = shop
        .post(r#"{"user":"u-1","item":"anvil","quantity":1}"#)
        .await;
    assert_eq!(
        answer.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        answer.body
    );
    assert!(answer.headers.contains_key("retry-after"));
    let id = answer.body["order"].as_str().unwrap().to_owned();
    let order = shop.get(&format!("/orders/{id}")).await;
    assert_eq!(order.body["state"], "compensated", "{}", order.body);
    shop.close().await;
    let inventory = rusqlite::Connection::open(data.path().join("inventory.db")).unwrap();
    let held: i64 = inventory
        .query_row("SELECT COUNT(*) FROM reservations", [], |row| row.get(0))
        .unwrap();
    assert_eq!(held, 0, "a reservation stayed behind");
}

#[tokio::test]
async fn an_order_can_be_followed_and_repeated() {
    let data = TempDir::new().unwrap();
    let shop = Shop::open(data.path(), &[]).await;
    let body = serde_json::json!({ "user": "u-7", "item": "drill", "quantity": 2 });
    let (status, first) = crate::load::post(&shop.client, shop.gateway, "once", &body)
        .await
        .unwrap();
    assert_eq!(status, StatusCode::CREATED, "{first}");
    let (again, second) = crate::load::post(&shop.client, shop.gateway, "once", &body)
        .await
        .unwrap();
    assert_eq!(
        (again, &second["order"]),
        (StatusCode::CREATED, &first["order"])
    );

    let order = shop
        .get(&format!("/orders/{}", first["order"].as_str().unwrap()))
        .await;
    assert_eq!(
        (order.status, &order.body["state"]),
        (StatusCode::OK, &"completed".into())
    );
    let other = serde_json::json!({ "user": "u-8", "item": "drill", "quantity": 2 });
    let (conflict, _) = crate::load::post(&shop.client, shop.gateway, "once", &other)
        .await
        .unwrap();
    assert_eq!(conflict, StatusCode::UNPROCESSABLE_ENTITY);

    let advice = shop.get("/users/u-7/recommendations").await;
    assert_eq!(advice.status, StatusCode::OK);
    let items = advice.body["items"].as_array().unwrap();
    assert!(
        !items.is_empty() && !items.contains(&"drill".into()),
        "{items:?}"
    );

    let metrics = shop.get("/metrics").await;
    assert!(
        metrics
            .body
            .as_str()
            .unwrap()
            .contains("orchestra_mesh_attempts_total"),
        "{}",
        metrics.body
    );
    shop.close().await;
    let books = crate::audit::Books::read(data.path()).unwrap();
    assert_eq!(books.ordered.len(), 1);
}
