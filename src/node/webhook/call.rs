//! One call of the receiver, and how long to wait after one that failed.

use std::time::Duration;

use bytes::Bytes;

use super::{grpc::GrpcPost, http::HttpPost};

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
pub(super) trait Post {
    /// Calls the receiver; success means that it has taken the body.
    fn post(&mut self, event: &str, body: &Bytes) -> Result<(), CallError>;
}

/// How the receiver is reached; each thread opens it for itself.
#[derive(Clone)]
pub(super) enum Way {
    Http(HttpPost),
    /// Host and port.
    Grpc(String),
}

impl Way {
    /// The way of this thread.
    pub(super) fn open(&self) -> Box<dyn Post> {
        match self {
            Self::Http(post) => Box::new(post.clone()),
            Self::Grpc(addr) => Box::new(GrpcPost::new(addr)),
        }
    }
}

const FIRST: Duration = Duration::from_secs(1);
const MAX: Duration = Duration::from_secs(15);

/// Pauses between tries: from one second, doubled, to fifteen.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// The pause after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
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
