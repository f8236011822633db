//! What a child writes, line by line, bounded.

use std::collections::VecDeque;
use std::sync::Arc;

use orchestra_core::{InstanceId, Listener};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::event::Event;
use crate::runtime::{Line, Output, Stream};

/// A longer line is cut into lines of this many bytes.
const LONGEST_LINE: usize = 4_096;

/// The newest lines.
#[derive(Debug)]
pub(super) struct Ring {
    lines: VecDeque<Line>,
    capacity: usize,
    lost: u64,
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            lines: VecDeque::new(),
            capacity,
            lost: 0,
        }
    }

    pub(super) fn push(&mut self, line: Line) {
        self.lines.push_back(line);
        if self.lines.len() > self.capacity {
            self.lines.pop_front();
            self.lost += 1;
        }
    }

    pub(super) fn read(&self) -> Output {
        Output::new(self.lines.iter().cloned().collect(), self.lost)
    }
}

/// Cuts bytes into lines.
#[derive(Debug, Default)]
struct Cutter {
    rest: Vec<u8>,
}

impl Cutter {
    fn feed(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.rest.extend_from_slice(piece);
            while self.rest.len() >= LONGEST_LINE || self.rest.ends_with(b"\n") {
                let at = self.rest.len().min(LONGEST_LINE);
                let tail = self.rest.split_off(at);
                line(self.rest.strip_suffix(b"\n").unwrap_or(&self.rest));
                self.rest = tail;
            }
        }
    }

    fn finish(self, mut line: impl FnMut(&[u8])) {
        if !self.rest.is_empty() {
            line(&self.rest);
        }
    }
}

/// Where the lines of one stream go.
pub(super) struct Sink {
    pub(super) instance: InstanceId,
    pub(super) stream: Stream,
    pub(super) ring: Arc<Mutex<Ring>>,
    pub(super) listener: Arc<dyn Listener<Event>>,
}

impl Sink {
    fn take(&self, bytes: &[u8]) {
        let line = Line::new(self.stream, String::from_utf8_lossy(bytes));
        self.ring.lock().push(line.clone());
        let instance = self.instance.clone();
        self.listener.on_event(&Event::Output { instance, line });
    }

    /// Reads to the end.
    pub(super) async fn drain(self, mut pipe: impl AsyncRead + Unpin) {
        let mut cutter = Cutter::default();
        let mut buffer = vec![0; 8 * 1_024];
        // An error on a pipe is its end.
        while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
            cutter.feed(buffer.get(..count).unwrap_or_default(), |line| {
                self.take(line);
            });
        }
        cutter.finish(|line| self.take(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut cutter = Cutter::default();
        let mut keep = |line: &[u8]| lines.push(String::from_utf8_lossy(line).into_owned());
        for chunk in chunks {
            cutter.feed(chunk, &mut keep);
        }
        cutter.finish(&mut keep);
        lines
    }

    #[test]
    fn lines_do_not_depend_on_how_the_bytes_arrive() {
        let whole = cut(&[b"one\n\ntwo\nthree"]);
        assert_eq!(whole, ["one", "", "two", "three"]);
        assert_eq!(cut(&[b"on", b"e\n", b"\ntwo", b"\nthr", b"ee"]), whole);
    }

    #[test]
    fn an_endless_line_is_cut() {
        let lines = cut(&[&[b'x'; 3 * LONGEST_LINE], b"y\n"]);
        let lengths: Vec<_> = lines.iter().map(String::len).collect();
        assert_eq!(lengths, [LONGEST_LINE, LONGEST_LINE, LONGEST_LINE, 1]);
    }
}
