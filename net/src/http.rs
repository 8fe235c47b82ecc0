//! HTTP/1.1 for the API, on the shard's own thread: hyper over monoio's readiness interface.
//!
//! A request is read whole, within bounds, then handed to an [`HttpService`]; its answer leaves
//! whole. Requests of one connection are answered in order (pipelining works).

use std::{
    cell::Cell,
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::{SocketAddr, TcpListener},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::Service};
use monoio::net::TcpStream;
use monoio_compat::hyper::{MonoioIo, MonoioTimer};

use crate::{
    admission::{Admission, Permit},
    handle::{Handle, Hold},
    listener::{self, Accept},
    rt,
};

/// A future of this thread.
pub type LocalBoxFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// A request, read whole.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// The method.
    pub method: Method,
    /// The path as on the request line, still percent-encoded, without the query.
    pub path: String,
    /// What follows the `?`, still encoded; empty when there is none.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; empty when there is none.
    pub body: Bytes,
    /// The other end of the connection.
    pub peer: SocketAddr,
}

/// An answer. Content-Length and Date are added.
#[derive(Clone, Debug, Default)]
pub struct HttpResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// What answers requests.
pub trait HttpService: 'static {
    /// Answers one. Dropped when the client goes away meanwhile.
    fn call(&self, request: HttpRequest) -> LocalBoxFuture<HttpResponse>;
}

/// Bounds of an HTTP listener. Sizes in bytes, times in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct HttpSettings {
    /// The largest body; a larger one is answered with 413, before it is read when its length is
    /// announced.
    pub body_size_max: usize,
    /// Bodies that a shard may hold at once, in all; above it requests are answered with 503.
    pub body_total_size_max: usize,
    /// From the last answer (or the accept) to the end of the next request's headers. Longer than
    /// the 60 s after which proxies drop idle connections, so that they drop first.
    pub idle_ms: u64,
    /// From the headers to the end of the body.
    pub body_ms: u64,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            body_size_max: 64 << 20,
            body_total_size_max: 256 << 20,
            idle_ms: 75_000,
            body_ms: 30_000,
        }
    }
}

impl Handle {
    /// Serves HTTP on `listener` ([`crate::bind`]), until the drain. `admission` bounds the
    /// connections; those above it are closed at once and counted.
    pub fn serve_http(
        &self,
        listener: TcpListener,
        admission: Admission,
        settings: HttpSettings,
        service: Rc<impl HttpService>,
    ) -> io::Result<()> {
        let mut builder = http1::Builder::new();
        builder
            .timer(MonoioTimer)
            .header_read_timeout(Duration::from_millis(settings.idle_ms))
            .pipeline_flush(true);
        let server =
            Server { builder, admission, settings, service, body_size: Rc::new(Cell::new(0)) };
        listener::listen(self, listener, server)
    }
}

struct Server<S> {
    builder: http1::Builder,
    admission: Admission,
    settings: HttpSettings,
    service: Rc<S>,
    /// Of all bodies held now.
    body_size: Rc<Cell<usize>>,
}

impl<S: HttpService> Accept for Server<S> {
    fn accepted(&self, handle: &Handle, stream: TcpStream, peer: SocketAddr) {
        let counters = &handle.0.counters;
        let Some(permit) = self.admission.admit(peer.ip()) else {
            counters.refused.add(1);
            return;
        };
        // A socket without it works too.
        let _ = stream.set_nodelay(true);
        let Ok(stream) = stream.try_into_poll_io() else {
            counters.accept_errors.add(1);
            return;
        };
        counters.http_accepted.add(1);
        counters.http_open.add(1);
        let exchange = Exchange {
            handle: handle.clone(),
            service: Rc::clone(&self.service),
            settings: self.settings,
            body_size: Rc::clone(&self.body_size),
            peer,
        };
        let connection = self.builder.serve_connection(MonoioIo::new(stream), exchange);
        let open = Open { handle: handle.clone(), _permit: permit };
        let drain_begun = handle.drain_begun();
        rt::spawn(async move {
            let (mut connection, mut drain_begun) = (pin!(connection), pin!(drain_begun));
            let mut is_last = false;
            // In a drain the request under way is the last one; a connection without one is closed.
            let ended = poll_fn(|context| {
                if !is_last && drain_begun.as_mut().poll(context).is_ready() {
                    is_last = true;
                    connection.as_mut().graceful_shutdown();
                }
                connection.as_mut().poll(context)
            });
            // Every failure is the peer's: it went away, was late, or did not speak HTTP.
            if let Err(error) = ended.await {
                tracing::debug!(%error, %peer, "HTTP connection ended");
            }
            drop(open);
        });
    }
}

/// An open connection; counted until it is dropped.
struct Open {
    handle: Handle,
    _permit: Permit,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.handle.0.counters.http_open.sub(1);
    }
}

/// What a connection does with its requests.
struct Exchange<S> {
    handle: Handle,
    service: Rc<S>,
    settings: HttpSettings,
    body_size: Rc<Cell<usize>>,
    peer: SocketAddr,
}

impl<S: HttpService> Service<Request<Incoming>> for Exchange<S> {
    type Response = Response<Whole>;
    type Error = Infallible;
    type Future = LocalBoxFuture<Result<Response<Whole>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let hold = self.handle.hold();
        let handle = self.handle.clone();
        let service = Rc::clone(&self.service);
        let settings = self.settings;
        let share = Share { all: Rc::clone(&self.body_size), size: 0 };
        let peer = self.peer;
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let (answer, must_close) = match read_body(body, &settings, share).await {
                Ok((body, share)) => {
                    let request = HttpRequest {
                        method: parts.method,
                        path: parts.uri.path().to_owned(),
                        query: parts.uri.query().unwrap_or_default().to_owned(),
                        headers: parts.headers,
                        body,
                        peer,
                    };
                    let answer = service.call(request).await;
                    drop(share);
                    (answer, false)
                }
                Err(status) => {
                    let answer = HttpResponse { status, ..HttpResponse::default() };
                    (answer, true)
                }
            };
            handle.0.counters.http_requests.add(1);
            let mut response = Response::new(Whole { bytes: answer.body, _hold: hold });
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.headers;
            if must_close || handle.is_draining() {
                let close = header::HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Ok(response)
        })
    }
}

/// A request's share of the bodies held; given back when it is dropped.
struct Share {
    all: Rc<Cell<usize>>,
    size: usize,
}

impl Share {
    fn grow(&mut self, size: usize, settings: &HttpSettings) -> Result<(), StatusCode> {
        if self.size + size > settings.body_size_max {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        if self.all.get() + size > settings.body_total_size_max {
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        self.all.set(self.all.get() + size);
        self.size += size;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.set(self.all.get().saturating_sub(self.size));
    }
}

/// Reads a body within its bounds of size and time.
async fn read_body(
    body: Incoming,
    settings: &HttpSettings,
    share: Share,
) -> Result<(Bytes, Share), StatusCode> {
    if body.is_end_stream() {
        return Ok((Bytes::new(), share));
    }
    let announced = body.size_hint().lower();
    if announced > settings.body_size_max as u64 {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    // Boxed, because most requests have their body in the first read and none is pending here.
    let all = Box::pin(collect(body, settings, share));
    monoio::time::timeout(Duration::from_millis(settings.body_ms), all)
        .await
        .unwrap_or(Err(StatusCode::REQUEST_TIMEOUT))
}

async fn collect(
    mut body: Incoming,
    settings: &HttpSettings,
    mut share: Share,
) -> Result<(Bytes, Share), StatusCode> {
    let mut first = Bytes::new();
    let mut whole: Vec<u8> = Vec::new();
    while let Some(frame) = next_frame(&mut body).await {
        let frame = frame.map_err(|_| StatusCode::BAD_REQUEST)?;
        // Trailers are of no use to anyone here.
        let Ok(bytes) = frame.into_data() else {
            continue;
        };
        share.grow(bytes.len(), settings)?;
        if first.is_empty() && whole.is_empty() {
            first = bytes;
            continue;
        }
        if whole.is_empty() {
            whole.extend_from_slice(&first);
            first = Bytes::new();
        }
        whole.extend_from_slice(&bytes);
    }
    let bytes = if whole.is_empty() { first } else { whole.into() };
    Ok((bytes, share))
}

async fn next_frame(body: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
    poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
}

/// A body of one piece. Holds the drain until it is on its way.
struct Whole {
    bytes: Bytes,
    _hold: Hold,
}

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        let bytes = std::mem::take(&mut self.bytes);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}
