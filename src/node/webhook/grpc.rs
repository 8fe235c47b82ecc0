//! Webhooks over gRPC (http-api.md §19.3): one unary method, plaintext HTTP/2.
//!
//! The two messages have two fields each: they are written and read here by hand.

use std::{
    convert::Infallible,
    fmt::Display,
    future::poll_fn,
    io,
    net::{self, Shutdown, ToSocketAddrs as _},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, header};
use http_body::{Body, Frame};
use hyper::client::conn::http2::{SendRequest, handshake};
use monoio::{LegacyDriver, RuntimeBuilder, net::TcpStream, time::TimeDriver};
use monoio_compat::hyper::{MonoioExecutor, MonoioIo};

use super::call::{CallError, Post};

const METHOD: &str = "/wkhook.WebhookService/SendWebhook";
/// v2's time for a call, and for connecting.
const CALL_MAX: Duration = Duration::from_secs(10);
/// An answer has two small fields.
const ANSWER_SIZE_MAX: usize = 1 << 20;
/// `EventStatus`.
const SUCCESS: u64 = 1;
/// Codes of gRPC for a receiver that cannot serve now: deadline, exhausted, unavailable.
const AWAY: [&str; 3] = ["4", "8", "14"];

type Runtime = monoio::Runtime<TimeDriver<LegacyDriver>>;

/// The way of one thread to one receiver: a connection, opened when it is needed, and the loop that
/// serves it while a call is under way.
pub(super) struct GrpcPost {
    addr: String,
    call_max: Duration,
    runtime: Option<Runtime>,
    open: Option<Open>,
}

struct Open {
    sender: SendRequest<Whole>,
    /// Its socket once more.
    socket: net::TcpStream,
}

impl Drop for Open {
    /// Whatever still serves the connection ends the next time that the loop runs.
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl GrpcPost {
    /// `addr`: host and port.
    pub(super) fn new(addr: &str) -> Self {
        Self { addr: addr.to_owned(), call_max: CALL_MAX, runtime: None, open: None }
    }
}

impl Post for GrpcPost {
    fn post(&mut self, event: &str, body: &Bytes) -> Result<(), CallError> {
        let frame = request_frame(event, body)?;
        let runtime = match &mut self.runtime {
            Some(runtime) => runtime,
            None => self.runtime.insert(build()?),
        };
        let (addr, call_max, kept) = (self.addr.as_str(), self.call_max, self.open.take());
        let (open, answer) = runtime.block_on(async move {
            if kept.is_some() {
                match try_call(addr, call_max, kept, frame.clone()).await {
                    // What was closed while nobody looked is found out by the next call.
                    (_, Err(CallError::Away(_))) => {}
                    answered => return answered,
                }
            }
            try_call(addr, call_max, None, frame).await
        });
        self.open = open;
        answer
    }
}

/// epoll: whatever the kernel allows, and calls are few.
fn build() -> Result<Runtime, CallError> {
    let built = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build();
    built.map_err(|error| CallError::Away(error.to_string()))
}

/// A call over the connection, or over a new one, which is given back if somebody is there.
async fn try_call(
    addr: &str,
    call_max: Duration,
    kept: Option<Open>,
    frame: Bytes,
) -> (Option<Open>, Result<(), CallError>) {
    let calling = async {
        let mut open = match kept {
            Some(open) => open,
            None => connect(addr, call_max).await?,
        };
        match call(addr, &mut open.sender, frame).await {
            Err(CallError::Away(error)) => Err(CallError::Away(error)),
            answer => Ok((open, answer)),
        }
    };
    match monoio::time::timeout(call_max, calling).await {
        Ok(Ok((open, answer))) => (Some(open), answer),
        Ok(Err(error)) => (None, Err(error)),
        Err(_) => (None, Err(CallError::Away(format!("no answer in {call_max:?}")))),
    }
}

async fn connect(addr: &str, connect_max: Duration) -> Result<Open, CallError> {
    let away = |error: &dyn Display| CallError::Away(format!("connecting: {error}"));
    let socket = connect_socket(addr, connect_max).map_err(|error| away(&error))?;
    let stream = socket.try_clone().and_then(TcpStream::from_std).map_err(|error| away(&error))?;
    let stream = stream.try_into_poll_io().map_err(|(error, _)| away(&error))?;
    let (sender, connection) =
        handshake(MonoioExecutor, MonoioIo::new(stream)).await.map_err(|error| away(&error))?;
    drop(monoio::spawn(async move {
        // Whoever calls hears of its end.
        let _ = connection.await;
    }));
    Ok(Open { sender, socket })
}

/// Waits on the thread: nothing else runs on it.
fn connect_socket(addr: &str, connect_max: Duration) -> io::Result<net::TcpStream> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for addr in addr.to_socket_addrs()? {
        match net::TcpStream::connect_timeout(&addr, connect_max) {
            Ok(socket) => {
                // A socket without it works too.
                let _ = socket.set_nodelay(true);
                socket.set_nonblocking(true)?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn call(addr: &str, sender: &mut SendRequest<Whole>, frame: Bytes) -> Result<(), CallError> {
    let away = |error: &dyn Display| CallError::Away(error.to_string());
    let request = Request::post(format!("http://{addr}{METHOD}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "jindou")
        .body(Whole(Some(frame)))
        .map_err(|error| away(&error))?;
    sender.ready().await.map_err(|error| away(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| away(&error))?;
    let status = answer.status();
    if !status.is_success() {
        return Err(CallError::Away(format!("status {}", status.as_u16())));
    }
    check_status(answer.headers())?;
    let mut body = answer.into_body();
    let mut bytes = BytesMut::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        match frame.map_err(|error| away(&error))?.into_data() {
            Ok(data) if bytes.len() + data.len() <= ANSWER_SIZE_MAX => bytes.put(data),
            Ok(_) => return Err(CallError::Refused("the answer is too long".to_owned())),
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    check_status(&trailers)?;
                }
            }
        }
    }
    match event_status(&bytes) {
        Some(SUCCESS) => Ok(()),
        Some(_) | None => Err(CallError::Refused("the receiver says that it failed".to_owned())),
    }
}

/// grpc-status, of trailers or of headers that are the whole answer.
fn check_status(headers: &HeaderMap) -> Result<(), CallError> {
    let status = headers.get("grpc-status").map(HeaderValue::as_bytes);
    match status {
        None | Some(b"0") => Ok(()),
        Some(status) => {
            let status = String::from_utf8_lossy(status);
            let text = format!("grpc-status {status}");
            let is_away = AWAY.contains(&&*status);
            Err(if is_away { CallError::Away(text) } else { CallError::Refused(text) })
        }
    }
}

/// `EventReq { string event = 1; bytes data = 2; }` in the frame of gRPC.
fn request_frame(event: &str, data: &[u8]) -> Result<Bytes, CallError> {
    let mut message = BytesMut::with_capacity(data.len() + event.len() + 16);
    for (tag, field) in [(0x0a, event.as_bytes()), (0x12, data)] {
        message.put_u8(tag);
        put_varint(&mut message, field.len());
        message.put(field);
    }
    let size = u32::try_from(message.len())
        .map_err(|_| CallError::Refused("the event is too large for gRPC".to_owned()))?;
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(size);
    frame.put(message);
    Ok(frame.freeze())
}

fn put_varint(out: &mut BytesMut, mut n: usize) {
    loop {
        let low = u8::try_from(n & 0x7f).unwrap_or(0);
        n >>= 7;
        out.put_u8(if n == 0 { low } else { low | 0x80 });
        if n == 0 {
            return;
        }
    }
}

/// `status` of `EventResp { EventStatus status = 1; bytes data = 2; }` in the frame of gRPC; 0 when
/// it is left out; `None`: that is no such message.
fn event_status(frame: &[u8]) -> Option<u64> {
    let (head, message) = frame.split_first_chunk::<5>()?;
    let [compressed, size @ ..] = *head;
    let size = usize::try_from(u32::from_be_bytes(size)).ok()?;
    let mut rest = message.get(..size).filter(|_| compressed == 0)?;
    let mut status = 0;
    while !rest.is_empty() {
        let tag = take_varint(&mut rest)?;
        match tag & 7 {
            0 => {
                let value = take_varint(&mut rest)?;
                if tag >> 3 == 1 {
                    status = value;
                }
            }
            1 => rest = rest.get(8..)?,
            2 => {
                let size = usize::try_from(take_varint(&mut rest)?).ok()?;
                rest = rest.get(size..)?;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A body that is there as a whole.
struct Whole(Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_receiver_that_is_silent_is_left_in_time() {
        let silent = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut post = GrpcPost::new(&silent.local_addr().unwrap().to_string());
        post.call_max = Duration::from_millis(200);
        let answer = post.post("msg.notify", &Bytes::from_static(b"[]"));
        assert!(matches!(answer, Err(CallError::Away(_))), "{answer:?}");
        // The connection has ended with the call.
        let (mut socket, _) = silent.accept().unwrap();
        socket.set_read_timeout(Some(CALL_MAX)).unwrap();
        io::Read::read_to_end(&mut socket, &mut Vec::new()).unwrap();
        drop(silent);
        let answer = post.post("msg.notify", &Bytes::from_static(b"[]"));
        assert!(matches!(answer, Err(CallError::Away(_))), "{answer:?}");
    }

    #[test]
    fn a_request_is_what_protoc_writes() {
        let frame = request_frame("msg.notify", b"[]").unwrap();
        assert_eq!(&*frame, b"\0\0\0\0\x10\x0a\x0amsg.notify\x12\x02[]");
        let long = request_frame("e", &[7; 300]).unwrap();
        assert_eq!(long.get(8..11), Some(&b"\x12\xac\x02"[..]));
    }

    #[test]
    fn an_answer_is_read_with_what_we_do_not_know_in_it() {
        assert_eq!(event_status(b"\0\0\0\0\x02\x08\x01"), Some(1));
        assert_eq!(event_status(b"\0\0\0\0\0"), Some(0));
        assert_eq!(event_status(b"\0\0\0\0\x09\x12\x03abc\x08\x01\x18\x07"), Some(1));
        for bad in [&b""[..], b"\x01\0\0\0\0", b"\0\0\0\0\x05\x08", b"\0\0\0\0\x02\x12\x09"] {
            assert_eq!(event_status(bad), None, "{bad:?}");
        }
    }
}
