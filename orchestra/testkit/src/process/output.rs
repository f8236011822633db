//! The output of a process, line by line.

use std::collections::VecDeque;
use std::fmt;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How many lines are kept.
pub(super) const MAX_LINES: usize = 16_384;
/// A longer line is cut into several, so that a child cannot fill the memory of its test.
const MAX_LINE: u64 = 64 * 1024;
const TAIL: usize = 20;

/// Where a line was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of output, without its end; bytes that are not UTF-8 are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    stream: Stream,
    text: String,
}

impl Line {
    /// Where it was printed.
    pub const fn stream(&self) -> Stream {
        self.stream
    }

    /// What it says.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The last lines, and how many came before them.
#[derive(Debug, Default)]
struct Kept {
    dropped: usize,
    lines: VecDeque<Line>,
}

impl Kept {
    fn push(&mut self, line: Line) {
        if self.lines.len() == MAX_LINES {
            self.lines.pop_front();
            self.dropped += 1;
        }
        self.lines.push_back(line);
    }

    /// The lines from number `seen` on, counted from the first one ever printed.
    fn from(&self, seen: usize) -> impl Iterator<Item = &Line> {
        self.lines.iter().skip(seen.saturating_sub(self.dropped))
    }

    fn total(&self) -> usize {
        self.dropped + self.lines.len()
    }
}

/// Records both streams until they end, in tasks that end with this value.
#[derive(Debug)]
pub(super) struct Transcript {
    kept: watch::Receiver<Kept>,
    _pumps: JoinSet<()>,
}

impl Transcript {
    pub(super) fn record(stdout: Option<ChildStdout>, stderr: Option<ChildStderr>) -> Self {
        let (sender, kept) = watch::channel(Kept::default());
        let mut pumps = JoinSet::new();
        if let Some(pipe) = stdout {
            pumps.spawn(pump(pipe, Stream::Stdout, sender.clone()));
        }
        if let Some(pipe) = stderr {
            pumps.spawn(pump(pipe, Stream::Stderr, sender));
        }
        Self {
            kept,
            _pumps: pumps,
        }
    }

    pub(super) fn lines(&self) -> Vec<Line> {
        self.kept.borrow().from(0).cloned().collect()
    }

    pub(super) fn tail(&self) -> String {
        let kept = self.kept.borrow();
        let last = kept.from(kept.total().saturating_sub(TAIL));
        let last: Vec<&str> = last.map(Line::text).collect();
        last.join("\n")
    }

    /// The first line that satisfies `wanted`; `None` once both streams ended without one.
    pub(super) async fn find(&self, wanted: impl Fn(&str) -> bool) -> Option<Line> {
        let mut kept = self.kept.clone();
        let mut seen = 0;
        loop {
            {
                let kept = kept.borrow_and_update();
                if let Some(line) = kept.from(seen).find(|line| wanted(line.text())) {
                    return Some(line.clone());
                }
                seen = kept.total();
            }
            // An error means that both streams ended, and that all they said was looked at.
            kept.changed().await.ok()?;
        }
    }
}

async fn pump(pipe: impl AsyncRead + Unpin, stream: Stream, kept: watch::Sender<Kept>) {
    let mut pipe = BufReader::new(pipe);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let mut line = (&mut pipe).take(MAX_LINE);
        if !matches!(line.read_until(b'\n', &mut bytes).await, Ok(count) if count > 0) {
            return;
        }
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end_matches(['\n', '\r']).to_owned();
        kept.send_modify(|kept| kept.push(Line { stream, text }));
    }
}
