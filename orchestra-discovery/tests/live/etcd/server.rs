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
    site: Site,
    dir: TempDir,
    process: Process,
}

/// Where it is and how it is started.
struct Site {
    name: String,
    client: String,
    peer: String,
    cluster: String,
    options: Vec<String>,
}

impl Server {
    pub(super) async fn start(options: &[&str]) -> Self {
        let [site] = sites(options);
        Self::at(site).await
    }

    /// Three members of one cluster.
    pub(super) async fn cluster() -> [Self; 3] {
        let [a, b, c] = sites(&[]);
        tokio::join!(Self::at(a), Self::at(b), Self::at(c)).into()
    }

    async fn at(site: Site) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let process = site.run(&dir).await;
        Self { site, dir, process }
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        self.site.client.parse().unwrap()
    }

    pub(super) fn config(&self) -> Config {
        Config::new([self.endpoint()])
    }

    pub(super) fn registry(&self) -> EtcdRegistry {
        EtcdRegistry::new(self.config()).unwrap()
    }

    /// The client itself, for what an operator or a stranger does.
    pub(super) async fn raw(&self) -> Client {
        Client::connect([&self.site.client], None).await.unwrap()
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
        self.process = self.site.run(&self.dir).await;
    }

    pub(super) async fn restart_empty(&mut self) {
        self.dir = tempfile::tempdir().unwrap();
        self.restart().await;
    }
}

/// The members of one cluster, at addresses that are free.
fn sites<const N: usize>(options: &[&str]) -> [Site; N] {
    let addresses = || {
        // Held together, so that they differ.
        let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        listeners.map(|listener| listener.local_addr().unwrap().to_string())
    };
    let (clients, peers) = (addresses(), addresses());
    let members = peers.iter().enumerate();
    let members: Vec<_> = members
        .map(|(number, peer)| format!("m{number}=http://{peer}"))
        .collect();
    let cluster = members.join(",");
    std::array::from_fn(|number| Site {
        name: format!("m{number}"),
        client: clients[number].clone(),
        peer: peers[number].clone(),
        cluster: cluster.clone(),
        options: options.iter().map(ToString::to_string).collect(),
    })
}

impl Site {
    async fn run(&self, dir: &TempDir) -> Process {
        let client = format!("http://{}", self.client);
        let peer = format!("http://{}", self.peer);
        let mut command = Command::new(variable("ORCH_TEST_ETCD_BIN"));
        command
            .args(["--name", &self.name, "--unsafe-no-fsync"])
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &self.cluster])
            .arg("--data-dir")
            .arg(dir.path())
            .args(&self.options);
        let process = Process::spawn(command).unwrap();
        let ready = |line: &str| line.contains("ready to serve client requests");
        process
            .wait_for_line(ready, Duration::from_secs(30))
            .await
            .unwrap();
        process
    }
}
