//! The way of lines to the thread that writes them. Bounded in lines and bytes: when it is full a line is
//! dropped and counted, and nobody waits.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::DROPPED;
use super::files::Place;
use super::json::{now, rfc3339};

/// Lines that may wait.
const LINES_MAX: usize = 8192;
/// Bytes that may wait.
const SIZE_MAX: usize = 8 << 20;
/// Bytes that are written at once.
const WRITE_SIZE: usize = 64 << 10;

/// Where a queue ends.
pub(super) trait Sink: Send + 'static {
    /// Writes whole lines. What fails is lost.
    fn write(&mut self, place: Place, lines: &[u8]) -> io::Result<()>;
}

/// A queue and its thread. Cheap to clone.
#[derive(Clone)]
pub(super) struct Queue {
    sender: flume::Sender<Item>,
    size: Arc<AtomicUsize>,
}

enum Item {
    Line(Place, Vec<u8>),
    /// Told when all before it is written.
    Flush(flume::Sender<()>),
}

impl Queue {
    /// Starts the thread that writes to `sink`; it ends with the process.
    pub(super) fn start(name: &str, sink: impl Sink) -> io::Result<Self> {
        let (sender, items) = flume::bounded(LINES_MAX);
        let size = Arc::new(AtomicUsize::new(0));
        let writer = Writer { sink, size: size.clone(), lines: Vec::new(), count: 0, told: 0 };
        thread::Builder::new().name(name.into()).spawn(move || writer.run(&items))?;
        Ok(Self { sender, size })
    }

    /// Adds a line with its newline, or drops it.
    pub(super) fn push(&self, place: Place, line: Vec<u8>) {
        let size = line.len();
        let before = self.size.fetch_add(size, Ordering::Relaxed);
        if before + size > SIZE_MAX || self.sender.try_send(Item::Line(place, line)).is_err() {
            self.size.fetch_sub(size, Ordering::Relaxed);
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was pushed is written, for a time.
    pub(super) fn flush(&self, patience: Duration) {
        let (done, waits) = flume::bounded(1);
        if self.sender.send_timeout(Item::Flush(done), patience).is_ok() {
            // After that time the process ends without them.
            let _ = waits.recv_timeout(patience);
        }
    }
}

struct Writer<S> {
    sink: S,
    size: Arc<AtomicUsize>,
    /// What is written next: lines of one place.
    lines: Vec<u8>,
    /// How many they are.
    count: u64,
    /// Dropped lines that the log has been told of.
    told: u64,
}

impl<S: Sink> Writer<S> {
    fn run(mut self, items: &flume::Receiver<Item>) {
        let mut last = Place::Info;
        while let Ok(item) = items.recv() {
            for item in std::iter::once(item).chain(items.try_iter()) {
                match item {
                    Item::Line(place, line) => {
                        self.size.fetch_sub(line.len(), Ordering::Relaxed);
                        if place != last || self.lines.len() + line.len() > WRITE_SIZE {
                            self.write(last);
                        }
                        last = place;
                        self.lines.extend_from_slice(&line);
                        self.count += 1;
                    }
                    Item::Flush(done) => {
                        self.write(last);
                        // Who asked may have gone.
                        let _ = done.send(());
                    }
                }
            }
            self.write(last);
            self.tell_dropped();
        }
    }

    fn write(&mut self, place: Place) {
        if !self.lines.is_empty() && self.sink.write(place, &self.lines).is_err() {
            DROPPED.fetch_add(self.count, Ordering::Relaxed);
        }
        self.lines.clear();
        self.lines.shrink_to(WRITE_SIZE);
        self.count = 0;
    }

    fn tell_dropped(&mut self) {
        let dropped = super::dropped();
        if dropped > self.told {
            let text = format!(
                "【log】{} lines were dropped: writing is too slow or fails",
                dropped - self.told
            );
            let line = format!(
                "{{\"level\":\"warn\",\"time\":\"{}\",\"msg\":{}}}\n",
                rfc3339(now()),
                Value::from(text)
            );
            if self.sink.write(Place::Warn, line.as_bytes()).is_ok() {
                self.told = dropped;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// Writes when it is let, and tells what.
    struct Held {
        go: flume::Receiver<()>,
        written: flume::Sender<(Place, String)>,
    }

    impl Sink for Held {
        fn write(&mut self, place: Place, lines: &[u8]) -> io::Result<()> {
            self.go.recv().map_err(io::Error::other)?;
            let text = String::from_utf8(lines.to_vec()).unwrap();
            self.written.send((place, text)).map_err(io::Error::other)
        }
    }

    #[test]
    fn a_full_queue_drops_lines_counts_them_and_says_so() {
        let (let_go, go) = flume::unbounded();
        let (written, told) = flume::unbounded();
        let queue = Queue::start("test", Held { go, written }).unwrap();
        let before = super::super::dropped();
        queue.push(Place::Info, b"first\n".to_vec());
        // The thread has taken some when it waits for its turn; the queue takes no more than it may.
        for _ in 0..3 * LINES_MAX {
            queue.push(Place::Info, b"x\n".to_vec());
        }
        assert!(super::super::dropped() - before >= LINES_MAX as u64);
        drop((0..100_000).map(|_| let_go.send(())).collect::<Vec<_>>());
        queue.flush(Duration::from_secs(20));
        let texts: Vec<_> = told.try_iter().collect();
        assert!(texts.first().unwrap().1.starts_with("first\n"));
        let lines: usize = texts.iter().map(|(_, text)| text.lines().count()).sum();
        assert!((LINES_MAX..=2 * LINES_MAX + 2).contains(&lines), "{lines}");
        let tells = |(place, text): &(Place, String)| {
            *place == Place::Warn && text.contains("lines were dropped")
        };
        assert!(
            texts.iter().any(tells) || tells(&told.recv_timeout(Duration::from_secs(20)).unwrap()),
        );
    }

    #[test]
    fn bytes_are_bounded_too_and_what_is_flushed_is_written() {
        let (let_go, go) = flume::unbounded();
        let (written, told) = flume::unbounded();
        let queue = Queue::start("test", Held { go, written }).unwrap();
        queue.push(Place::Error, vec![b'e'; SIZE_MAX + 1]);
        for place in [Place::Warn, Place::Error, Place::Error] {
            queue.push(place, b"line\n".to_vec());
        }
        drop((0..100).map(|_| let_go.send(())).collect::<Vec<_>>());
        queue.flush(Duration::from_secs(20));
        let all: Vec<_> = told.try_iter().filter(|(_, text)| !text.contains("dropped")).collect();
        assert_eq!(all.first().unwrap(), &(Place::Warn, "line\n".to_owned()));
        let errors: String = all
            .iter()
            .filter(|(place, _)| *place == Place::Error)
            .map(|(_, t)| t.as_str())
            .collect();
        assert_eq!(errors, "line\nline\n");
    }
}
