//! A PostgreSQL of a test's own.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use orchestra_saga::PostgresStore;
use orchestra_saga::store::postgres::Config;
use orchestra_testkit::Process;
use tempfile::TempDir;

use crate::variable;

pub(crate) struct Server {
    port: u16,
    directory: TempDir,
    options: Vec<String>,
    process: Process,
}

/// The server does not run as root: it is run as the user of its package.
fn command(program: &str) -> Command {
    let program = Path::new(&variable("ORCH_TEST_PG_BIN")).join(program);
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
        .arg(program);
    command
}

fn succeed(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

impl Server {
    pub(crate) async fn start(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut chown = Command::new("chown");
        chown.arg("postgres:postgres").arg(directory.path());
        succeed(chown);
        let mut initdb = command("initdb");
        initdb
            .args(["-A", "trust", "-N", "-E", "UTF8", "--locale=C.UTF-8", "-D"])
            .arg(directory.path());
        succeed(initdb);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let options: Vec<_> = options.iter().map(ToString::to_string).collect();
        let process = run(&directory, port, &options).await.unwrap();
        Self {
            port,
            directory,
            options,
            process,
        }
    }

    pub(crate) fn address(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub(crate) fn config(&self) -> Config {
        Config::parse(&self.address()).unwrap()
    }

    pub(crate) async fn store(&self) -> PostgresStore {
        PostgresStore::connect(self.config()).await.unwrap()
    }

    pub(crate) async fn raw(&self) -> tokio_postgres::Client {
        super::raw_at(&self.address()).await
    }

    /// As a failing machine does it: all processes at once.
    pub(crate) async fn kill(&mut self) {
        let pid = self.process.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let mut kill = Command::new("kill");
        kill.arg("-KILL")
            .arg(pid.to_string())
            .args(children.split_whitespace());
        // One of them may have ended by itself.
        kill.output().unwrap();
        self.process.wait().await.unwrap();
    }

    /// As an operator does it: clients are cut off.
    pub(crate) async fn stop(&mut self) {
        self.process.interrupt().unwrap();
        self.process.wait().await.unwrap();
    }

    pub(crate) async fn restart(&mut self) {
        // What a killed server leaves behind needs a moment to notice.
        for _ in 0..100 {
            if let Some(process) = run(&self.directory, self.port, &self.options).await {
                self.process = process;
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the server does not start again");
    }
}

async fn run(directory: &TempDir, port: u16, options: &[String]) -> Option<Process> {
    let mut command = command("postgres");
    command
        .arg("-D")
        .arg(directory.path())
        .args(["-p", &port.to_string()])
        .args(["-c", "listen_addresses=127.0.0.1"])
        .args(["-c", "unix_socket_directories="])
        // A killed server leaves no shared memory behind: it is in its directory.
        .args(["-c", "dynamic_shared_memory_type=mmap"]);
    for option in options {
        command.args(["-c", option]);
    }
    let process = Process::spawn(command).unwrap();
    let ready = |line: &str| line.contains("ready to accept connections");
    let waiting = process.wait_for_line(ready, Duration::from_secs(30)).await;
    waiting.is_ok().then_some(process)
}
