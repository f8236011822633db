use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use etcd_client::Client;
use orchestra_core::Endpoint;
use orchestra_discovery::EtcdRegistry;
use orchestra_discovery::registry::etcd::Config;
use orchestra_testkit::Process;
use tempfile::TempDir;

use crate::variable;

/// An etcd of the test's own.
pub(super) struct Server {
    client: String,
    peer: String,
    options: Vec<String>,
    dir: TempDir,
    process: Process,
}

impl Server {
    pub(super) async fn start(options: &[&str]) -> Self {
        let (client, peer) = (free_address(), free_address());
        let options: Vec<_> = options.iter().map(ToString::to_string).collect();
        let dir = tempfile::tempdir().unwrap();
        let process = run(&client, &peer, &dir, &options).await;
        Self {
            client,
            peer,
            options,
            dir,
            process,
        }
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        self.client.parse().unwrap()
    }

    pub(super) fn config(&self) -> Config {
        Config::new([self.endpoint()])
    }

    pub(super) fn registry(&self) -> EtcdRegistry {
        EtcdRegistry::new(self.config()).unwrap()
    }

    /// The client itself, for what an operator or a stranger does.
    pub(super) async fn raw(&self) -> Client {
        Client::connect([&self.client], None).await.unwrap()
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    /// With SIGKILL.
    pub(super) async fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().await.unwrap();
    }

    /// At the same address, with what it had stored.
    pub(super) async fn restart(&mut self) {
        self.process = run(&self.client, &self.peer, &self.dir, &self.options).await;
    }

    pub(super) async fn restart_empty(&mut self) {
        self.dir = tempfile::tempdir().unwrap();
        self.restart().await;
    }
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

async fn run(client: &str, peer: &str, dir: &TempDir, options: &[String]) -> Process {
    let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
    let mut command = Command::new(variable("ORCH_TEST_ETCD_BIN"));
    command
        .args(["--name", "one", "--unsafe-no-fsync"])
        .args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ])
        .args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ])
        .args(["--initial-cluster", &format!("one={peer}")])
        .arg("--data-dir")
        .arg(dir.path())
        .args(options);
    let process = Process::spawn(command).unwrap();
    let ready = |line: &str| line.contains("ready to serve client requests");
    process
        .wait_for_line(ready, Duration::from_secs(30))
        .await
        .unwrap();
    process
}
