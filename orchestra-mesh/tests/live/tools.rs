//! The programs that play the peer.

use std::process::Output;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::{Failure, variable};

const LIMIT: Duration = Duration::from_secs(30);

async fn output(name: &str, arguments: &[&str]) -> Result<Output, Failure> {
    let mut command = Command::new(variable(name)?);
    let running = command.args(arguments).kill_on_drop(true).output();
    Ok(timeout(LIMIT, running).await??)
}

/// What curl got.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) version: String,
    head: String,
    pub(crate) body: Vec<u8>,
    /// What curl tells of the exchange, if it was asked for with `-v`.
    pub(crate) told: String,
}

impl Answer {
    /// A header of the last response.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut pairs = self.head.lines().filter_map(|line| line.split_once(':'));
        pairs
            .rfind(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_default()
    }
}

/// One request with curl; an error if it could not be made or answered.
pub(crate) async fn curl(arguments: &[&str]) -> Result<Answer, Failure> {
    let directory = tempfile::tempdir()?;
    let (head, body) = (directory.path().join("head"), directory.path().join("body"));
    let (head_path, body_path) = (head.to_string_lossy(), body.to_string_lossy());
    let wanted = "%{http_code} %{http_version}";
    let fixed = [
        "-sS", "-q", "-m", "20", "-D", &head_path, "-o", &body_path, "-w", wanted,
    ];
    let output = output("ORCH_TEST_CURL", &[&fixed, arguments].concat()).await?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(format!("curl {arguments:?}: {told}").into());
    }
    let said = String::from_utf8(output.stdout)?;
    let (status, version) = said.split_once(' ').ok_or("curl said nothing")?;
    Ok(Answer {
        status: status.parse()?,
        version: version.to_owned(),
        head: std::fs::read_to_string(head)?,
        // Without a body there is no file.
        body: std::fs::read(body).unwrap_or_default(),
        told,
    })
}

/// How many connections curl made for each of these, asked one after another.
pub(crate) async fn connects(arguments: &[&str]) -> Result<Vec<String>, Failure> {
    let fixed = ["-sS", "-q", "-m", "20", "-w", "%{stderr}%{num_connects}\n"];
    let output = output("ORCH_TEST_CURL", &[&fixed, arguments].concat()).await?;
    let counts = String::from_utf8(output.stderr)?;
    if !output.status.success() {
        return Err(format!("curl {arguments:?}: {counts}").into());
    }
    Ok(counts.lines().map(str::to_owned).collect())
}

/// Sends so many requests with h2load, and is satisfied if each was answered with 2xx.
pub(crate) async fn h2load(requests: u32, arguments: &[&str]) -> Result<(), Failure> {
    let count = requests.to_string();
    let output = output("ORCH_TEST_H2LOAD", &[&["-n", &count], arguments].concat()).await?;
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let counts = [
        format!("{count} succeeded, 0 failed, 0 errored, 0 timeout"),
        format!("status codes: {count} 2xx, 0 3xx, 0 4xx, 0 5xx"),
    ];
    if counts.iter().all(|count| report.contains(count)) {
        return Ok(());
    }
    Err(format!("h2load {arguments:?}: {report}").into())
}
