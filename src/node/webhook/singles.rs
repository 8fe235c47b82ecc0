//! msg.offline: a call per message, several at once, in no order (http-api.md §19.5).

use std::{thread, time::Instant};

use jindou_core::{
    id::NodeId,
    notice::{Telling, Told},
};

use super::{
    Desk, OFFLINE,
    call::{Backoff, Post},
};

/// One of the threads.
pub(super) struct Singles {
    pub(super) queue: flume::Receiver<Telling>,
    pub(super) post: Box<dyn Post>,
    pub(super) desk: Desk,
    pub(super) compress_above: Option<usize>,
    pub(super) node: NodeId,
}

impl Singles {
    /// Posts until the process ends.
    pub(super) fn run(mut self) {
        while let Ok(telling) = self.queue.recv() {
            self.tell(&telling);
        }
    }

    fn tell(&mut self, telling: &Telling) {
        let taken = std::iter::once(telling.into());
        let Told::Offline { message, uids } = &telling.what else {
            return self.desk.end(taken);
        };
        let body = jindou_api::offline_body(message, uids, self.compress_above, self.node);
        let begun = Instant::now();
        let (mut backoff, mut tries) = (Backoff::default(), 0u64);
        loop {
            let Err(error) = self.post.post(OFFLINE, &body) else {
                return self.desk.took(taken);
            };
            self.desk.count_failure();
            tries += 1;
            if tries == 1 {
                tracing::warn!("webhook {OFFLINE} is not taken and is tried again: {error}");
            }
            if begun.elapsed() >= self.desk.patience {
                return self.desk.give_up(OFFLINE, taken);
            }
            thread::sleep(backoff.next());
        }
    }
}
