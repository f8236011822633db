//! A proxy on a socket in a directory of its own, and a client of it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use orchestra_testkit::Process;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::common::GRACE;

pub(super) struct Proxy {
    directory: TempDir,
    process: Process,
}

impl Proxy {
    /// Starts what listens on the socket `socket` in the directory given to `command`.
    pub(super) async fn start(command: impl FnOnce(&Path) -> Command) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let process = Process::spawn(command(directory.path())).unwrap();
        let mut proxy = Self { directory, process };
        proxy.wait_for("socket").await;
        proxy
    }

    /// Waits until one can connect to the socket of this name.
    pub(super) async fn wait_for(&mut self, name: &str) {
        let socket = self.directory.path().join(name);
        let connected = async {
            while UnixStream::connect(&socket).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let connected = tokio::time::timeout(GRACE, connected).await;
        assert!(connected.is_ok(), "no {name}: {:?}", self.process);
    }

    pub(super) async fn client(&self, name: &str) -> Client {
        let stream = UnixStream::connect(self.directory.path().join(name)).await;
        Client(BufReader::new(stream.unwrap()))
    }
}

/// One connection that is kept.
pub(super) struct Client(BufReader<UnixStream>);

impl Client {
    /// The status and the body of an answer.
    pub(super) async fn get(&mut self, path: &str, key: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: here\r\nx-key: {key}\r\n\r\n");
        let answer = tokio::time::timeout(GRACE, self.exchange(&request)).await;
        answer.unwrap().unwrap()
    }

    /// The port that the answer comes from.
    pub(super) async fn port(&mut self, path: &str, key: &str) -> u16 {
        let (status, body) = self.get(path, key).await;
        assert_eq!(status, 200, "{body}");
        body.parse().unwrap()
    }

    async fn exchange(&mut self, request: &str) -> std::io::Result<(u16, String)> {
        self.0.get_mut().write_all(request.as_bytes()).await?;
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let (mut length, mut is_chunked) = (0, false);
        loop {
            line.clear();
            self.0.read_line(&mut line).await?;
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            is_chunked |= line == "transfer-encoding: chunked";
        }
        let mut body = Vec::new();
        while is_chunked {
            line.clear();
            self.0.read_line(&mut line).await?;
            let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
            let begin = body.len();
            body.resize(begin + size + 2, 0);
            self.0.read_exact(&mut body[begin..]).await?;
            body.truncate(begin + size);
            is_chunked = size > 0;
        }
        if length > 0 {
            body.resize(length, 0);
            self.0.read_exact(&mut body).await?;
        }
        let body = String::from_utf8(body).unwrap();
        Ok((status.unwrap(), body))
    }
}
