//! The runtime, as the rest of the crate sees it: spawn, sleep, sockets.
//!
//! monoio 0.2.4 has three habits that this crate works around, all in one place each:
//! - A task that wakes itself goes to the front of the run queue and starves the others. So no
//!   task of ours wakes itself: the driver yields through a second task or through an eventfd
//!   ([`crate::driver`]).
//! - Timers and foreign wakers are served only when the run queue is empty. So the driver lets it
//!   run empty every few turns, however busy it is.
//! - A dropped read loses bytes and a dropped accept leaks a descriptor. So neither is ever
//!   dropped: each is awaited by a task of its own, and ends when its socket is shut down.

use std::{
    cell::UnsafeCell,
    future::Future,
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    rc::Rc,
};

use monoio::{
    BufResult, FusionRuntime, IoUringDriver, LegacyDriver, RuntimeBuilder,
    buf::{IoBuf, IoBufMut},
    io::{AsyncReadRent, AsyncWriteRent, OwnedReadHalf, OwnedWriteHalf},
    net::TcpStream,
    time::TimeDriver,
};

use crate::probe::DriverKind;

/// Ring entries, and the epoll events taken at once.
const ENTRY_COUNT: u32 = 4096;
/// Completions that the ring holds before the kernel has to keep them in a list: all connections
/// may become readable at once.
const COMPLETION_COUNT: u32 = 32_768;

/// A runtime of one thread.
pub(crate) type Runtime = FusionRuntime<TimeDriver<IoUringDriver>, TimeDriver<LegacyDriver>>;

/// Builds the runtime of the calling thread.
///
/// COOP_TASKRUN keeps completions from interrupting the thread: they wait for its next system call.
/// That saves 18 % of an echo (6.3 to 5.2 µs), because waiting for readability makes more of them
/// than waiting with a read. DEFER_TASKRUN must not be set: with it, all of monoio's I/O stops
/// while any task is ready. Kernels before 6.0 lack a flag and get none.
pub(crate) fn build(kind: DriverKind) -> io::Result<Runtime> {
    match kind {
        DriverKind::IoUring => {
            let mut flags = io_uring::IoUring::builder();
            flags.setup_coop_taskrun().setup_single_issuer().setup_cqsize(COMPLETION_COUNT);
            build_io_uring(flags).or_else(|_| build_io_uring(io_uring::IoUring::builder()))
        }
        DriverKind::Epoll => Ok(RuntimeBuilder::<LegacyDriver>::new()
            .with_entries(ENTRY_COUNT)
            .enable_timer()
            .build()?
            .into()),
    }
}

fn build_io_uring(flags: io_uring::Builder) -> io::Result<Runtime> {
    Ok(RuntimeBuilder::<IoUringDriver>::new()
        .uring_builder(flags)
        .with_entries(ENTRY_COUNT)
        .enable_timer()
        .build()?
        .into())
}

/// Runs a future on this thread, beside the caller.
pub(crate) fn spawn(future: impl Future<Output = ()> + 'static) {
    drop(monoio::spawn(future));
}

/// The reading end of a connection.
pub(crate) struct ReadHalf(OwnedReadHalf<TcpStream>);

/// The writing end of a connection. Dropping it sends FIN.
pub(crate) struct WriteHalf(OwnedWriteHalf<TcpStream>);

/// Takes a connection apart. Each half may be used while an operation of the other is under way.
pub(crate) fn split(stream: TcpStream) -> (ReadHalf, WriteHalf) {
    let shared = Rc::new(UnsafeCell::new(stream));
    (ReadHalf(OwnedReadHalf(Rc::clone(&shared))), WriteHalf(OwnedWriteHalf(shared)))
}

impl ReadHalf {
    /// Reads into a buffer that the operation owns meanwhile.
    pub(crate) fn read(
        &mut self,
        buffer: Vec<u8>,
    ) -> impl Future<Output = BufResult<usize, Vec<u8>>> {
        self.0.read(buffer)
    }

    /// Reads into the buffer that all connections of a shard share: waiting holds no buffer.
    /// When it returns `size`, the bytes stand in the buffer until the caller's next await.
    pub(crate) async fn read_shared(&mut self, buffer: &SharedBuffer) -> io::Result<usize> {
        self.0.read(SharedBuffer(Rc::clone(&buffer.0))).await.0
    }

    /// Waits until there are bytes or the end. Holds no buffer.
    #[expect(unsafe_code, reason = "monoio's read half hides `readable`")]
    pub(crate) async fn readable(&self) -> io::Result<()> {
        // SAFETY: the halves are !Send, so only this thread gets here. `TcpStream` promises
        // (`unsafe impl Split`) that reading and writing operations do not disturb each other:
        // both only copy the reference-counted descriptor.
        let stream: &TcpStream = unsafe { &*self.0.0.get() };
        stream.readable(false).await
    }
}

/// One buffer for all connections of a shard. Exists on epoll only, where monoio receives in the
/// moment in which the reading task runs, and never behind its back.
pub(crate) struct SharedBuffer(Rc<UnsafeCell<Box<[u8]>>>);

impl SharedBuffer {
    /// `None` on io_uring, where the kernel writes whenever it likes.
    pub(crate) fn new(kind: DriverKind, size: usize) -> Option<Self> {
        match kind {
            DriverKind::IoUring => None,
            DriverKind::Epoll => {
                let bytes = vec![0; size].into_boxed_slice();
                Some(Self(Rc::new(UnsafeCell::new(bytes))))
            }
        }
    }

    /// Looks at the first `size` bytes.
    #[expect(unsafe_code, reason = "the cell is shared with reads that wait")]
    pub(crate) fn with<T>(&self, size: usize, look: impl FnOnce(&[u8]) -> T) -> T {
        // SAFETY: the cell is !Sync, so only this thread gets here. Nothing writes to it but a
        // `recv` in a poll of a reading task, and `look` polls nothing.
        let bytes: &[u8] = unsafe { &*self.0.get() };
        look(bytes.get(..size).unwrap_or_default())
    }
}

// SAFETY: the pointer is to a box that lives as long as this clone of the Rc and never moves, all
// of it is initialised, and on epoll (the only driver on which a value exists) monoio writes
// through it in its poll only, when nobody looks (see `with`).
#[expect(unsafe_code, reason = "the trait promises a stable address")]
unsafe impl IoBufMut for SharedBuffer {
    fn write_ptr(&mut self) -> *mut u8 {
        // SAFETY: as above; the reference ends here.
        unsafe { &mut *self.0.get() }.as_mut_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        // SAFETY: as above; the reference ends here.
        unsafe { &*self.0.get() }.len()
    }

    unsafe fn set_init(&mut self, _: usize) {}
}

impl AsRawFd for ReadHalf {
    #[expect(unsafe_code, reason = "monoio's read half hides the descriptor")]
    fn as_raw_fd(&self) -> RawFd {
        // SAFETY: as in `readable`.
        unsafe { (*self.0.0.get()).as_raw_fd() }
    }
}

impl WriteHalf {
    /// Sends a buffer, or the first part of it.
    pub(crate) fn write<T: IoBuf>(
        &mut self,
        buffer: T,
    ) -> impl Future<Output = BufResult<usize, T>> {
        self.0.write(buffer)
    }
}

/// Waits until an eventfd of another thread is readable, again and again.
pub(crate) struct EventStream(TcpStream);

impl EventStream {
    /// Takes a descriptor of an eventfd. (monoio polls any descriptor; its stream type is the only
    /// one that may be made from one on both drivers.)
    pub(crate) fn new(event: OwnedFd) -> io::Result<Self> {
        TcpStream::from_std(event.into()).map(Self)
    }

    /// Waits.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.0.readable(false).await
    }
}
