//! Ends the process when it does not end by itself: a drain takes a bounded time, and so does the
//! way out after a fault, whatever hangs (a disk above all).

use std::{
    io, process,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// After a drain: groups and databases close.
const CLOSE_MAX: Duration = Duration::from_millis(1_500);
/// From a fault to the end of the process.
const FAULT_MAX: Duration = Duration::from_secs(3);

/// Watches over the end of the process. Cheap to clone; dropping every handle ends the watch.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    sender: mpsc::Sender<Cause>,
}

/// Why the process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It was told to, and drains.
    Told,
    /// It can't go on.
    Fault,
}

impl Guard {
    /// Starts the watch. `drain_max`: how long a drain may take before what is open is cut off.
    pub(super) fn start(drain_max: Duration) -> io::Result<Self> {
        let (sender, causes) = mpsc::channel();
        thread::Builder::new().name("guard".into()).spawn(move || {
            if let Some(time) = watch(&causes, drain_max.saturating_add(CLOSE_MAX), FAULT_MAX) {
                tracing::error!(
                    "not stopped within {} ms: the process ends now; what was acknowledged is on disk",
                    time.as_millis()
                );
                crate::log::flush();
                process::exit(1);
            }
        })?;
        Ok(Self { sender })
    }

    /// The process is to end: from here on its time is counted.
    pub(super) fn end(&self, cause: Cause) {
        // Nobody watches any more when the process ends already.
        let _ = self.sender.send(cause);
    }
}

/// Waits for a cause, then for its time to pass; gives that time. `None`: everybody has gone.
fn watch(causes: &mpsc::Receiver<Cause>, told: Duration, fault: Duration) -> Option<Duration> {
    let mut end: Option<(Instant, Duration)> = None;
    loop {
        let cause = match end {
            None => causes.recv().ok()?,
            Some((at, time)) => match causes.recv_timeout(at.duration_since(Instant::now())) {
                Ok(cause) => cause,
                Err(RecvTimeoutError::Timeout) => return Some(time),
                Err(RecvTimeoutError::Disconnected) => return None,
            },
        };
        let time = match cause {
            Cause::Told => told,
            Cause::Fault => fault,
        };
        let at = Instant::now() + time;
        // A second signal gains no time; a fault in a drain ends it sooner.
        if end.is_none_or(|(before, _)| at < before) {
            end = Some((at, time));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(30);
    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn the_time_of_a_cause_passes_and_a_fault_shortens_a_drain() {
        let (sender, causes) = mpsc::channel();
        let begin = Instant::now();
        sender.send(Cause::Told).ok();
        sender.send(Cause::Fault).ok();
        sender.send(Cause::Told).ok();
        assert_eq!(watch(&causes, LONG, SHORT), Some(SHORT));
        assert!(begin.elapsed() >= SHORT);
    }

    #[test]
    fn a_second_signal_gains_no_time() {
        let (sender, causes) = mpsc::channel();
        let told = thread::spawn(move || {
            for _ in 0..100 {
                sender.send(Cause::Told).ok();
                thread::sleep(Duration::from_millis(5));
            }
        });
        let begin = Instant::now();
        assert_eq!(watch(&causes, SHORT, LONG), Some(SHORT));
        assert!(begin.elapsed() < Duration::from_millis(400));
        drop(causes);
        told.join().ok();
    }

    #[test]
    fn the_watch_ends_with_the_node() {
        let (sender, causes) = mpsc::channel();
        sender.send(Cause::Told).ok();
        drop(sender);
        assert_eq!(watch(&causes, LONG, LONG), None);
    }
}
