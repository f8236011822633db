//! HEAD is answered as GET is, without the body, whoever makes the answer.

use http::{Request, Response};
use orchestra_mesh::connect::{Config, Protocol};
use orchestra_mesh::route::{PathPattern, Route};
use orchestra_mesh::{Body, Client, Gateway};

use crate::upstream::{Checked, GRACE, any_port, first, get, round_robin, text};

#[tokio::test]
async fn head_is_answered_without_a_body_over_either_protocol() -> Checked {
    let service = tower::service_fn(|_: Request<Body>| async {
        Ok::<_, std::convert::Infallible>(Response::new(Body::from("whole")))
    });
    let serving = Gateway::builder()
        .route(Route::to("here", "here".parse()?).path(PathPattern::prefix("/here")?))
        .mount("here".parse()?, service)
        .build()?
        .serve([any_port()])
        .await?;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let client = Client::builder("gateway".parse()?, round_robin(&[first(&serving)])?)
            .connect(Config::default().protocol(protocol))
            .build()?;
        for (path, status) in [("/here", 200), ("/nowhere", 404)] {
            let whole = client.send(get(path)?).await?;
            assert_eq!(whole.status(), status);
            let length = whole.headers()["content-length"].clone();
            text(whole).await?;
            let head = client.send(Request::head(path).body(Body::empty())?);
            let head = head.await?;
            assert_eq!(head.status(), status, "{protocol:?}");
            assert_eq!(head.headers()["content-length"].len(), length.len());
            assert_eq!(text(head).await?, "", "{protocol:?}");
        }
        client.shutdown().await;
    }
    assert_eq!(serving.shutdown(GRACE).await.cut, 0);
    Ok(())
}
