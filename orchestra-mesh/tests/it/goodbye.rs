//! A server that ends an HTTP/2 connection with GOAWAY and ignores the streams it does not name.

use std::sync::Arc;
use std::time::Duration;

use orchestra_core::{Endpoint, Outcome};
use orchestra_mesh::pick::RoundRobin;
use orchestra_mesh::{Client, Policy, Ratio, budget, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::client::{Witness, quick};
use crate::upstream::{Checked, Failure, post, targets};

const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const HEADERS: u8 = 1;

/// GOAWAY whose last stream is 0: no request was looked at.
fn goaway(reason: h2::Reason) -> Vec<u8> {
    let mut frame = vec![0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    frame.extend(u32::from(reason).to_be_bytes());
    frame
}

/// Waits for a request, and ends the connection without it.
async fn ignore(mut stream: TcpStream, reason: h2::Reason) -> Checked {
    stream.write_all(&SETTINGS).await?;
    stream.read_exact(&mut [0; 24]).await?;
    let mut head = [0; 9];
    while head[3] != HEADERS {
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; length.try_into()?]).await?;
    }
    stream.write_all(&goaway(reason)).await?;
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

async fn answer(stream: TcpStream) -> Checked {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (_, mut respond) = request?;
        respond.send_response(http::Response::new(()), true)?;
    }
    Ok(())
}

/// The outcomes of one order whose first connection ends so.
async fn order(reason: h2::Reason, budget: budget::Config) -> Result<Vec<Outcome>, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = Endpoint::Tcp(listener.local_addr()?);
    let pick = Witness::new(RoundRobin::new(targets(&[endpoint])?));
    let client = Client::builder("cart".parse()?, Arc::clone(&pick) as _)
        .connect(connect::Config::default().protocol(connect::Protocol::Http2))
        .policy(Policy::default().retry(quick()).budget(budget))
        .build()?;
    let serving = async {
        let (first, _) = listener.accept().await?;
        let (ignored, accepted) = tokio::join!(ignore(first, reason), listener.accept());
        ignored?;
        answer(accepted?.0).await
    };
    tokio::select! {
        served = serving => served?,
        () = tokio::time::sleep(Duration::from_secs(10)) => return Err("no answer".into()),
        response = client.send(post("/", "x")?) => assert_eq!(response?.status(), 200),
    }
    Ok(pick.outcomes())
}

#[tokio::test]
async fn a_goodbye_costs_neither_the_budget_nor_the_name_of_the_instance() -> Checked {
    let nothing = budget::Config::default()
        .ratio(Ratio::NOTHING)
        .floor_per_second(0);
    let outcomes = order(h2::Reason::NO_ERROR, nothing).await?;
    assert_eq!(outcomes, [Outcome::Neutral, Outcome::Success]);
    Ok(())
}

#[tokio::test]
async fn a_connection_ended_in_anger_is_a_failure_and_its_streams_are_sent_again() -> Checked {
    let outcomes = order(h2::Reason::ENHANCE_YOUR_CALM, budget::Config::default()).await?;
    assert_eq!(outcomes, [Outcome::Failure, Outcome::Success]);
    Ok(())
}
