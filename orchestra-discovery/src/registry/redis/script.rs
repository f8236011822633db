//! The operations, each of them one script.

use std::fmt;

use super::Config;

/// One operation.
#[derive(Clone)]
pub(super) struct Script {
    name: &'static str,
    script: redis::Script,
}

impl Script {
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn invocation(&self) -> redis::ScriptInvocation<'_> {
        self.script.prepare_invoke()
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Script").field(&self.name).finish()
    }
}

#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) register: Script,
    pub(super) renew: Script,
    pub(super) status: Script,
    pub(super) deregister: Script,
    pub(super) forced: Script,
    pub(super) snapshot: Script,
    pub(super) changes: Script,
}

macro_rules! script {
    ($name:literal) => {
        Script {
            name: $name,
            script: redis::Script::new(concat!(
                include_str!("common.lua"),
                include_str!(concat!($name, ".lua"))
            )),
        }
    };
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            register: script!("register"),
            renew: script!("renew"),
            status: script!("status"),
            deregister: script!("deregister"),
            forced: script!("override"),
            snapshot: script!("snapshot"),
            changes: script!("changes"),
        }
    }
}

/// The names of the keys, as the scripts take them.
#[derive(Debug)]
pub(super) struct Keys {
    all: [String; 5],
}

impl Keys {
    pub(super) fn new(config: &Config) -> Self {
        let name = |rest: &str| format!("{{{}}}:{rest}", config.prefix);
        Self {
            all: ["meta", "log", "due", "forced", "of:"].map(name),
        }
    }

    pub(super) fn all(&self) -> &[String] {
        &self.all
    }

    pub(super) fn log(&self) -> &str {
        let [_, log, ..] = &self.all;
        log
    }
}
