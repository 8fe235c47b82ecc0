//! Sockets on the port of the links, up to the hello, and the hand-over to the wanted shard.
//!
//! With TLS its handshake is here too: the hello comes inside. A link that is plain where TLS is
//! wanted, or the other way round, is told so, in plain.

use std::{
    net::{self, Shutdown, SocketAddr},
    rc::{Rc, Weak},
};

use bytes::Bytes;
use monoio::{
    io::{AsyncReadRent, AsyncWriteRentExt},
    net::TcpStream,
};

use super::{
    Inner, Refusal, RefusalCode,
    accept::serve,
    frame::{Frame, FrameReader, HANDSHAKE_SIZE_MAX},
    fuse::Fuse,
    hello::Hello,
    identity::{Arrival, Caller},
    tls::{BEGIN_SIZE, OTHER_IS_PLAIN, OTHER_IS_TLS, Session, TlsFault, is_tls},
    wire::{Reading, Wire, duplicate, prepare},
};
use crate::{conn::is_passing, handle::Handle, listener::Accept, rt, sys};

/// How long the refused may take to close.
const LINGER_MS: u64 = 1_000;
/// Strangers that speak TLS where it is not spoken, or do not where it is, are told of once in so
/// long: they try again and again.
const STRANGER_PAUSE_MS: u64 = 10_000;

/// Takes sockets of the links' port.
pub(crate) struct Doorman(pub(crate) Weak<Inner>);

impl Accept for Doorman {
    fn accepted(&self, _: &Handle, stream: TcpStream, peer: SocketAddr) {
        if let Some(inner) = self.0.upgrade() {
            rt::spawn(greet(inner, stream, peer));
        }
    }
}

/// One of the sockets that have not said hello yet.
pub(crate) struct Greeting(Rc<Inner>);

impl Greeting {
    fn new(inner: &Rc<Inner>) -> Option<Self> {
        let count = &inner.greeting_count;
        if count.get() >= inner.settings.greeting_count_max || inner.is_stopped.get() {
            return None;
        }
        count.set(count.get() + 1);
        Some(Self(Rc::clone(inner)))
    }
}

impl Drop for Greeting {
    fn drop(&mut self) {
        let count = &self.0.greeting_count;
        count.set(count.get() - 1);
    }
}

/// A socket that has said hello.
pub(crate) struct Greeted {
    pub(crate) stream: TcpStream,
    pub(crate) address: SocketAddr,
    /// The hello's body.
    pub(crate) hello: Bytes,
    pub(crate) session: Option<Session>,
}

/// Why there is no hello.
enum NoHello {
    /// Whatever it was, it is of no interest.
    Nothing,
    /// TLS failed; the session may have a last word.
    Fault(Session, TlsFault),
    /// It speaks TLS and this node does not, or the other way round.
    Stranger {
        /// For the log of this node.
        ours: &'static str,
        /// For that of the other.
        theirs: &'static str,
    },
}

/// Reads a hello and brings the socket to the shard that it wants. Whatever else comes, the
/// socket is closed.
async fn greet(inner: Rc<Inner>, mut stream: TcpStream, address: SocketAddr) {
    let Some(greeting) = Greeting::new(&inner) else {
        inner.handle.counters().link_refusals.add(1);
        return;
    };
    let Ok(socket) = duplicate(&stream) else {
        return;
    };
    prepare(&socket);
    let fuse = Fuse::new(socket);
    fuse.set(Some(inner.now_ms() + inner.settings.handshake_ms));
    inner.fuses.add(&fuse);
    let (hello, session) = match read_hello(&inner, &mut stream).await {
        Ok(greeted) => greeted,
        Err(reason) => {
            inner.handle.counters().link_refusals.add(1);
            return inner.turn_away(stream, fuse, address, reason).await;
        }
    };
    let wanted = Hello::decode(&hello).map_or(0, |hello| hello.wanted);
    let own = inner.handle.shard().0;
    if wanted == own || wanted >= inner.settings.shard_count {
        let greeted = Greeted { stream, address, hello, session };
        return serve(inner, fuse, greeted, greeting).await;
    }
    drop(fuse);
    if let Ok(second) = sys::duplicate(&stream)
        && let Some(door) = inner.identity.door(wanted)
    {
        let stream = net::TcpStream::from(second);
        // When that shard is not there yet or has too much to do, the dialer tries again.
        let _ = door.put(Arrival::Socket(Caller { stream, address, hello, session }));
    }
}

/// Reads once; `None`: it is over.
async fn read(stream: &mut TcpStream, mut buffer: Vec<u8>) -> Option<Vec<u8>> {
    loop {
        let result;
        (result, buffer) = stream.read(buffer).await;
        match result {
            Ok(0) => return None,
            Ok(_) => return Some(buffer),
            Err(error) if is_passing(&error) => {}
            Err(_) => return None,
        }
    }
}

/// The body of the first frame, if that is a hello and nothing else came, and its TLS.
async fn read_hello(
    inner: &Inner,
    stream: &mut TcpStream,
) -> Result<(Bytes, Option<Session>), NoHello> {
    let mut begin = Vec::new();
    let mut buffer = Vec::with_capacity(HANDSHAKE_SIZE_MAX);
    while begin.len() < BEGIN_SIZE {
        buffer = read(stream, buffer).await.ok_or(NoHello::Nothing)?;
        begin.extend_from_slice(&buffer);
    }
    match (is_tls(&begin), &inner.settings.tls) {
        (false, None) => Ok((read_plain_hello(stream, &begin, buffer).await?, None)),
        (true, Some(tls)) => {
            let session = Session::acceptor(tls).map_err(|_| NoHello::Nothing)?;
            let (hello, session) = read_sealed_hello(stream, session, begin, buffer).await?;
            Ok((hello, Some(session)))
        }
        (true, None) => Err(NoHello::Stranger { ours: OTHER_IS_TLS, theirs: OTHER_IS_PLAIN }),
        (false, Some(_)) => {
            // Garbage is answered with nothing.
            read_plain_hello(stream, &begin, buffer).await?;
            Err(NoHello::Stranger { ours: OTHER_IS_PLAIN, theirs: OTHER_IS_TLS })
        }
    }
}

/// A hello, if there is one and nothing behind it.
fn take_hello(reader: &mut FrameReader) -> Result<Option<Bytes>, NoHello> {
    match reader.next().map_err(|_| NoHello::Nothing)? {
        Some(Frame::Hello(body)) if reader.held_size() == 0 => Ok(Some(body)),
        Some(_) => Err(NoHello::Nothing),
        None => Ok(None),
    }
}

async fn read_plain_hello(
    stream: &mut TcpStream,
    begin: &[u8],
    mut buffer: Vec<u8>,
) -> Result<Bytes, NoHello> {
    let mut reader = FrameReader::new(HANDSHAKE_SIZE_MAX);
    reader.push(begin);
    loop {
        if let Some(body) = take_hello(&mut reader)? {
            return Ok(body);
        }
        buffer = read(stream, buffer).await.ok_or(NoHello::Nothing)?;
        reader.push(&buffer);
    }
}

async fn read_sealed_hello(
    stream: &mut TcpStream,
    mut session: Session,
    mut sealed: Vec<u8>,
    mut buffer: Vec<u8>,
) -> Result<(Bytes, Session), NoHello> {
    let mut reader = FrameReader::new(HANDSHAKE_SIZE_MAX);
    loop {
        if let Err(fault) = session.open(&sealed, |plain| reader.push(plain)) {
            return Err(NoHello::Fault(session, fault));
        }
        let hello = take_hello(&mut reader)?;
        say(stream, &mut session).await.ok_or(NoHello::Nothing)?;
        if let Some(body) = hello {
            return Ok((body, session));
        }
        buffer = read(stream, buffer).await.ok_or(NoHello::Nothing)?;
        sealed.clear();
        sealed.extend_from_slice(&buffer);
    }
}

/// Sends what TLS has to say.
async fn say(stream: &mut TcpStream, session: &mut Session) -> Option<()> {
    let mut out = Vec::new();
    session.pull(&mut out).ok()?;
    if out.is_empty() {
        return Some(());
    }
    stream.write_all(out).await.0.ok().map(|_| ())
}

impl Inner {
    /// Takes a socket that another shard has accepted.
    pub(crate) fn take_over(self: &Rc<Self>, caller: Caller) {
        let Some(greeting) = Greeting::new(self) else {
            self.handle.counters().link_refusals.add(1);
            return;
        };
        let Caller { stream, address, hello, session } = caller;
        let Ok(stream) = TcpStream::from_std(stream) else {
            return;
        };
        let Ok(socket) = duplicate(&stream) else {
            return;
        };
        let fuse = Fuse::new(socket);
        fuse.set(Some(self.now_ms() + self.settings.handshake_ms));
        self.fuses.add(&fuse);
        let greeted = Greeted { stream, address, hello, session };
        rt::spawn(serve(Rc::clone(self), fuse, greeted, greeting));
    }

    /// Ends a socket that has not said hello.
    async fn turn_away(
        &self,
        mut stream: TcpStream,
        fuse: Rc<Fuse>,
        address: SocketAddr,
        reason: NoHello,
    ) {
        match reason {
            NoHello::Nothing => {
                tracing::debug!(%address, "no hello came on the port of the links");
            }
            NoHello::Fault(mut session, fault) => {
                self.tell_of_stranger(address, &fault.to_string());
                if say(&mut stream, &mut session).await.is_some() {
                    self.linger(&mut stream, &fuse).await;
                }
            }
            NoHello::Stranger { ours, theirs } => {
                self.tell_of_stranger(address, ours);
                let (size_max, traffic) = (self.settings.output_size_max, Rc::default());
                let (wire, mut reading) =
                    Wire::new(stream, fuse, &self.flusher, size_max, traffic, None);
                let refusal = Refusal::new(RefusalCode::Tls, theirs.to_owned());
                self.refuse(&wire, &mut reading, refusal).await;
            }
        }
    }

    /// Sends a refusal, and waits for the other end to close: who closes while something is unread
    /// takes back what was sent last.
    pub(crate) async fn refuse(&self, wire: &Rc<Wire>, reading: &mut Reading, refusal: Refusal) {
        let _ = wire.queue(&Frame::Refusal(refusal));
        wire.finish();
        wire.fuse().set(Some(self.now_ms() + LINGER_MS));
        wire.read_out(reading).await;
    }

    /// The same for what is no link yet.
    async fn linger(&self, stream: &mut TcpStream, fuse: &Fuse) {
        // It may have gone by itself.
        let _ = fuse.socket.shutdown(Shutdown::Write);
        fuse.set(Some(self.now_ms() + LINGER_MS));
        let mut buffer = Vec::with_capacity(HANDSHAKE_SIZE_MAX);
        while let Some(read) = read(stream, buffer).await {
            buffer = read;
        }
    }

    fn tell_of_stranger(&self, address: SocketAddr, text: &str) {
        let now_ms = self.now_ms();
        let told_ms = self.stranger_told_ms.get();
        if told_ms.is_some_and(|told_ms| now_ms < told_ms + STRANGER_PAUSE_MS) {
            tracing::debug!(%address, "a link was refused: {text}");
        } else {
            self.stranger_told_ms.set(Some(now_ms));
            tracing::warn!(%address, "a link was refused: {text}");
        }
    }
}
