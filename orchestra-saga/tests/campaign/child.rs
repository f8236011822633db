//! Processes of the campaign, from both sides.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child as Process, Command};
use tokio::sync::Notify;
use tokio::task::JoinSet;

const ORDERS: &str = "ORCHESTRA_SAGA_CAMPAIGN_ORDERS";

/// What this process was told by the one that started it, with which it dies.
pub(crate) fn orders<T: DeserializeOwned>() -> T {
    set_parent_process_death_signal(Some(Signal::KILL)).expect("set");
    let text = std::env::var(ORDERS).expect("orders");
    serde_json::from_str(&text).expect("valid orders")
}

/// A process that was started, and what it says.
#[derive(Debug)]
pub(crate) struct Child {
    process: Process,
    said: Arc<Mutex<Vec<String>>>,
    heard: Arc<Notify>,
    reader: JoinSet<()>,
}

impl Child {
    /// Starts this test binary for one of its ignored tests. What it complains of goes to a file.
    pub(crate) fn spawn(test: &str, orders: &impl Serialize, directory: &Path) -> Self {
        let complaints = std::fs::File::options()
            .append(true)
            .create(true)
            .open(directory.join("stderr"))
            .expect("a file");
        let mut process = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(ORDERS, serde_json::to_string(orders).expect("JSON"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(complaints)
            .kill_on_drop(true)
            .spawn()
            .expect("a child");
        let said = Arc::<Mutex<Vec<String>>>::default();
        let heard = Arc::<Notify>::default();
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let mut reader = JoinSet::new();
        let (to, tell) = (Arc::clone(&said), Arc::clone(&heard));
        reader.spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                to.lock().push(line);
                tell.notify_one();
            }
        });
        Self {
            process,
            said,
            heard,
            reader,
        }
    }

    fn signal(&self, signal: Signal) {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = id.and_then(Pid::from_raw) {
            // It may have ended by itself: it is not reaped, so the number is still its own.
            let _ended = kill_process(pid, signal);
        }
    }

    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits for its end. Cancelling this changes nothing.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        self.process.wait().await.expect("reaped")
    }

    /// Waits until it says something that contains this.
    pub(crate) async fn says(&self, text: &str) {
        while !self.said.lock().iter().any(|line| line.contains(text)) {
            self.heard.notified().await;
        }
    }

    /// Everything that it said, after its end.
    pub(crate) async fn last_words(mut self) -> Vec<String> {
        while self.reader.join_next().await.is_some() {}
        std::mem::take(&mut *self.said.lock())
    }
}

pub(crate) fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::KILL.as_raw())
}
