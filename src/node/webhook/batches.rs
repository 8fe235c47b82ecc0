//! msg.notify and user.onlinestatus: one call at a time, in order, with what has gathered
//! (http-api.md §19.4, §19.6).

use std::{
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use jindou_core::notice::{Telling, Told};

use super::{
    Desk, Taken,
    call::{Backoff, CallError, Post},
};

/// An event that the receiver refuses alone is tried again after so long.
const ASIDE: Duration = Duration::from_secs(60);
/// Payload of one call, about.
const BODY_SIZE_MAX: usize = 8 << 20;

/// One thread.
pub(super) struct Batches {
    pub(super) event: &'static str,
    pub(super) queue: flume::Receiver<Telling>,
    pub(super) post: Box<dyn Post>,
    pub(super) desk: Desk,
    /// Events of one call.
    pub(super) count_max: usize,
    /// How long they gather.
    pub(super) interval: Duration,
}

/// An event that the receiver refuses, while it takes others.
struct Aside {
    telling: Telling,
    begun: Instant,
    due: Instant,
}

impl Batches {
    /// Posts until the process ends.
    pub(super) fn run(mut self) {
        let mut aside = Vec::new();
        loop {
            let first = match aside.iter().map(|aside: &Aside| aside.due).min() {
                Some(due) => self.queue.recv_deadline(due),
                None => self.queue.recv().map_err(|_| flume::RecvTimeoutError::Disconnected),
            };
            match first {
                Ok(first) => {
                    let batch = self.gather(first);
                    self.tell(batch, &mut aside);
                }
                Err(flume::RecvTimeoutError::Timeout) => {}
                Err(flume::RecvTimeoutError::Disconnected) => return,
            }
            self.try_aside(&mut aside);
        }
    }

    fn gather(&self, first: Telling) -> Vec<Telling> {
        let until = Instant::now() + self.interval;
        let mut size = size_of(&first);
        let mut batch = vec![first];
        while batch.len() < self.count_max && size < BODY_SIZE_MAX {
            let Ok(next) = self.queue.recv_deadline(until) else { break };
            size += size_of(&next);
            batch.push(next);
        }
        batch
    }

    /// Posts a batch until it is taken, or all but what the receiver refuses.
    fn tell(&mut self, batch: Vec<Telling>, aside: &mut Vec<Aside>) {
        let begun = Instant::now();
        let (mut backoff, mut tries, mut refusals) = (Backoff::default(), 0u64, 0);
        loop {
            let Err(error) = self.call(&batch) else {
                return self.desk.took(batch.iter().map(Taken::from));
            };
            tries += 1;
            if tries == 1 {
                let count = batch.len();
                let event = self.event;
                tracing::warn!("webhook {event}: {count} event(s) are not taken: {error}");
            }
            if begun.elapsed() >= self.desk.patience {
                return self.desk.give_up(self.event, batch.iter().map(Taken::from));
            }
            refusals = if matches!(error, CallError::Refused(_)) { refusals + 1 } else { 0 };
            if refusals >= self.desk.tries_max {
                match self.tell_apart(batch, begun, aside) {
                    // Nothing of it is taken: it is not for what stands in it.
                    Some(same) => return self.tell_later(same, begun, aside),
                    None => return,
                }
            }
            thread::sleep(backoff.next());
        }
    }

    /// Posts each alone, and sets aside what is refused. Gives all back when all are.
    fn tell_apart(
        &mut self,
        batch: Vec<Telling>,
        begun: Instant,
        aside: &mut Vec<Aside>,
    ) -> Option<Vec<Telling>> {
        let mut refused = Vec::new();
        let mut is_any_taken = false;
        for telling in batch {
            match self.call(std::slice::from_ref(&telling)) {
                Ok(()) => {
                    is_any_taken = true;
                    self.desk.took(std::iter::once(Taken::from(&telling)));
                }
                Err(_) => refused.push(telling),
            }
        }
        if !is_any_taken {
            return Some(refused);
        }
        self.tell_later(refused, begun, aside);
        None
    }

    fn tell_later(&self, refused: Vec<Telling>, begun: Instant, aside: &mut Vec<Aside>) {
        let due = Instant::now() + ASIDE;
        tracing::warn!(
            "webhook {}: {} event(s) are refused and are tried again every {} s",
            self.event,
            refused.len(),
            ASIDE.as_secs()
        );
        aside.extend(refused.into_iter().map(|telling| Aside { telling, begun, due }));
    }

    /// Tries once more what is due of those set aside.
    fn try_aside(&mut self, aside: &mut Vec<Aside>) {
        let now = Instant::now();
        let due: Vec<Aside> = aside.extract_if(.., |aside| aside.due <= now).collect();
        for mut one in due {
            let taken = std::iter::once(Taken::from(&one.telling));
            if self.call(std::slice::from_ref(&one.telling)).is_ok() {
                self.desk.took(taken);
            } else if one.begun.elapsed() >= self.desk.patience {
                self.desk.give_up(self.event, taken);
            } else {
                one.due = Instant::now() + ASIDE;
                aside.push(one);
            }
        }
    }

    fn call(&mut self, batch: &[Telling]) -> Result<(), CallError> {
        let answer = self.post.post(self.event, &body_of(batch));
        if answer.is_err() {
            self.desk.count_failure();
        }
        answer
    }
}

fn size_of(telling: &Telling) -> usize {
    match &telling.what {
        Told::Stored(message) | Told::Offline { message, .. } => 256 + message.payload.len(),
        Told::Status(item) => item.len(),
    }
}

/// All of a batch are of one kind: each kind has a queue of its own.
fn body_of(batch: &[Telling]) -> Bytes {
    let mut messages = Vec::new();
    let mut items = Vec::new();
    for telling in batch {
        match &telling.what {
            Told::Stored(message) | Told::Offline { message, .. } => messages.push(message.clone()),
            Told::Status(item) => items.push(item.clone()),
        }
    }
    if items.is_empty() {
        jindou_api::notify_body(&messages)
    } else {
        jindou_api::status_body(&items)
    }
}
