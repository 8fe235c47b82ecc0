//! Times after which a socket is shut down. A connect or a read is never given up by dropping it:
//! it ends when its socket does.

use std::{
    cell::{Cell, RefCell},
    net::Shutdown,
    rc::{Rc, Weak},
};

use socket2::Socket;

/// A socket that is shut down when its time is over, unless that is taken back. Reads and
/// connects that wait on it end then.
pub(crate) struct Fuse {
    pub(super) socket: Socket,
    deadline_ms: Cell<Option<u64>>,
}

impl Fuse {
    /// A second descriptor of a socket.
    pub(crate) fn new(socket: Socket) -> Rc<Self> {
        Rc::new(Self { socket, deadline_ms: Cell::new(None) })
    }

    pub(crate) fn set(&self, deadline_ms: Option<u64>) {
        self.deadline_ms.set(deadline_ms);
    }

    pub(crate) fn blow(&self) {
        // It may have gone by itself.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    fn sweep(&self, now_ms: u64) {
        if self.deadline_ms.get().is_some_and(|at| at <= now_ms) {
            self.blow();
        }
    }
}

/// The fuses of a shard.
#[derive(Default)]
pub(crate) struct Fuses(RefCell<Vec<Weak<Fuse>>>);

impl Fuses {
    pub(crate) fn add(&self, fuse: &Rc<Fuse>) {
        self.0.borrow_mut().push(Rc::downgrade(fuse));
    }

    /// Shuts down what is late.
    pub(crate) fn sweep(&self, now_ms: u64) {
        self.0.borrow_mut().retain(|fuse| match fuse.upgrade() {
            Some(fuse) => {
                fuse.sweep(now_ms);
                true
            }
            None => false,
        });
    }
}
