//! One call of the receiver, and how long to wait after one that failed.

use std::time::Duration;

use bytes::Bytes;

/// Why the receiver has not taken a call.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// It was there and did not want this: another body may go through.
    #[error("{0}")]
    Refused(String),
    /// It is not there, or cannot serve.
    #[error("{0}")]
    Away(String),
}

/// A way to the receiver, of one thread.
pub(super) trait Post: Send {
    /// Calls the receiver; success means that it has taken the body.
    fn post(&mut self, event: &str, body: &Bytes) -> Result<(), CallError>;

    /// The same way, for another thread.
    fn another(&self) -> Box<dyn Post>;
}

const FIRST: Duration = Duration::from_secs(1);
const MAX: Duration = Duration::from_secs(15);

/// Pauses between tries: from one second, doubled, to fifteen.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// The pause after one more failure.
    pub(super) fn next(&mut self) -> Duration {
        let next = self.last.map_or(FIRST, |last| (last * 2).min(MAX));
        self.last = Some(next);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u64> = (0..6).map(|_| backoff.next().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 15, 15]);
    }
}
