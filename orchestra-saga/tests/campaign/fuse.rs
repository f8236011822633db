//! What a process was told to die of.

use parking_lot::Mutex;
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};

/// A point and which time that it is passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Armed {
    pub(crate) when: String,
    pub(crate) what: String,
    pub(crate) left: u32,
    pub(crate) act: Act,
}

/// What happens then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Act {
    Kill,
    Stop,
}

/// Goes off at one point.
#[derive(Debug, Default)]
pub(crate) struct Fuse(Mutex<Option<Armed>>);

impl Fuse {
    pub(crate) fn new(armed: Option<Armed>) -> Self {
        Self(Mutex::new(armed))
    }

    pub(crate) fn arm(&self, armed: Armed) {
        *self.0.lock() = Some(armed);
    }

    /// The process is here.
    pub(crate) fn at(&self, when: &str, what: &str) {
        let mut armed = self.0.lock();
        let Some(fuse) = armed.as_mut() else { return };
        if fuse.when != when || fuse.what != what {
            return;
        }
        fuse.left -= 1;
        if fuse.left > 0 {
            return;
        }
        let act = fuse.act;
        *armed = None;
        match act {
            // Held while the others of this process die too.
            Act::Kill => signal(Signal::KILL),
            Act::Stop => {
                drop(armed);
                println!("stopping");
                signal(Signal::STOP);
            }
        }
    }
}

fn signal(signal: Signal) {
    kill_process(getpid(), signal).expect("it may signal itself");
}
