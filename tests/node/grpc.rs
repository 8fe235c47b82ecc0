//! A receiver of webhooks that speaks gRPC: hyper's server side on a thread.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use monoio::net::TcpListener;
use monoio::{LegacyDriver, RuntimeBuilder};
use monoio_compat::hyper::{MonoioExecutor, MonoioIo};
use serde_json::Value;

/// What it does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Success,
    /// `EventStatus::Error`.
    Error,
    /// A code of gRPC in the trailers.
    Code(&'static str),
    /// The stream is reset.
    Reset,
}

#[derive(Default)]
struct Shared {
    /// For the next calls; then success.
    answers: Mutex<VecDeque<Answer>>,
    taken: Mutex<Vec<(String, Value)>>,
}

/// The receiver. Its thread lives as long as the process.
pub struct GrpcReceiver {
    address: String,
    shared: Arc<Shared>,
}

impl GrpcReceiver {
    /// One on a free port that does so with the first calls.
    pub fn start(answers: &[Answer]) -> Self {
        let shared = Arc::new(Shared::default());
        shared.answers.lock().unwrap().extend(answers);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serving = shared.clone();
        thread::spawn(move || {
            let mut runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build().unwrap();
            runtime.block_on(serve(listener, serving));
        });
        Self { address, shared }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// How many of the first answers are left.
    pub fn answers_left(&self) -> usize {
        self.shared.answers.lock().unwrap().len()
    }

    /// What it has taken of this event.
    pub fn taken(&self, event: &str) -> Vec<Value> {
        let taken = self.shared.taken.lock().unwrap();
        taken.iter().filter(|(of, _)| of == event).map(|(_, body)| body.clone()).collect()
    }
}

async fn serve(listener: std::net::TcpListener, shared: Arc<Shared>) {
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let shared = shared.clone();
        let service = service_fn(move |request| answer(request, shared.clone()));
        let stream = MonoioIo::new(stream.try_into_poll_io().unwrap());
        monoio::spawn(async move {
            let _ = http2::Builder::new(MonoioExecutor).serve_connection(stream, service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> io::Result<Response<Parts>> {
    assert_eq!(request.uri().path(), "/wkhook.WebhookService/SendWebhook");
    assert_eq!(request.headers()["content-type"], "application/grpc");
    assert_eq!(request.headers()["te"], "trailers");
    let (event, data) = event_of(&whole(request.into_body()).await);
    let answer = shared.answers.lock().unwrap().pop_front().unwrap_or(Answer::Success);
    let (frames, code): (&'static [u8], _) = match answer {
        Answer::Success => (b"\0\0\0\0\x02\x08\x01", "0"),
        // Proto3 leaves zeros out.
        Answer::Error => (b"\0\0\0\0\0", "0"),
        Answer::Code(code) => (b"", code),
        Answer::Reset => return Err(io::Error::other("reset")),
    };
    if answer == Answer::Success {
        let data = serde_json::from_slice(&data).unwrap();
        shared.taken.lock().unwrap().push((event, data));
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    let parts = [Frame::data(Bytes::from_static(frames)), Frame::trailers(trailers)];
    Ok(Response::builder()
        .header("content-type", "application/grpc")
        .body(Parts(parts.into()))
        .unwrap())
}

async fn whole(mut body: Incoming) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        bytes.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    bytes
}

/// `EventReq { string event = 1; bytes data = 2; }`, both there.
fn event_of(frame: &[u8]) -> (String, Vec<u8>) {
    let size = u32::from_be_bytes(frame[1..5].try_into().unwrap());
    assert_eq!((frame[0], size as usize), (0, frame.len() - 5));
    let mut rest = &frame[5..];
    let event = field(&mut rest, 0x0a).to_vec();
    let data = field(&mut rest, 0x12).to_vec();
    assert!(rest.is_empty());
    (String::from_utf8(event).unwrap(), data)
}

fn field<'a>(rest: &mut &'a [u8], tag: u8) -> &'a [u8] {
    assert_eq!(rest[0], tag);
    let (mut size, mut read) = (0, 1);
    loop {
        let byte = rest[read];
        size |= usize::from(byte & 0x7f) << (7 * (read - 1));
        read += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let (field, left) = rest[read..].split_at(size);
    *rest = left;
    field
}

/// The frames of an answer.
struct Parts(VecDeque<Frame<Bytes>>);

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}
