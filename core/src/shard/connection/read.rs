//! From bytes to frames and requests, and to whoever handles each.

use super::{Conn, Link, Session};
use crate::{
    id::ConnId,
    shard::Shard,
    wire::{
        frame::{self, Frame},
        inbound::Incoming,
        jsonrpc::{self, RpcCall, RpcRequest},
    },
};

/// Bytes that may wait for the answer to CONNECT; a connection that sends more is closed.
const WAITING_SIZE_MAX: usize = 2 * frame::FRAME_SIZE_MAX;

/// What reading goes on with.
pub(super) enum Flow {
    Next,
    /// Later frames wait.
    Pause,
    /// What was written leaves, then the socket closes.
    Close,
}

impl Shard {
    pub(in crate::shard) fn on_bytes(&mut self, conn: ConnId, bytes: &mut [u8]) {
        let Some(mut entry) = self.take_conn(conn) else {
            return;
        };
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        entry.link.active_mono_ms = self.now.mono_ms;
        entry.link.traffic.bytes_in += size;
        self.vars.traffic.bytes_in += size;
        self.read_frames(entry, bytes);
    }

    /// Reads frames until none is whole, the connection must wait, or it ends.
    pub(super) fn read_frames(&mut self, mut entry: Box<Conn>, bytes: &mut [u8]) {
        let Conn { inbound, link } = &mut *entry;
        let mut feed = inbound.feed(bytes);
        let flow = loop {
            // A packet that is taken is gone: what must wait is not taken.
            if matches!(link.session, Session::Authenticating(_)) {
                break Flow::Pause;
            }
            let written = self.out.bytes.len();
            let incoming = feed.next(&mut self.out.bytes);
            if self.out.bytes.len() > written {
                let range = written..self.out.bytes.len();
                self.out.push_write(link.conn, range);
            }
            let flow = match incoming {
                Ok(None) => break Flow::Next,
                Ok(Some(Incoming::Peer(peer))) => {
                    if std::mem::take(&mut link.may_name_client) {
                        link.peer = peer;
                    }
                    Flow::Next
                }
                Ok(Some(Incoming::Frame(frame))) => self.on_frame(link, frame),
                Ok(Some(Incoming::Rpc(Ok(request)))) => self.on_rpc(link, request),
                Ok(Some(Incoming::Rpc(Err(error)))) => {
                    if link.session.live().is_some() {
                        self.write(link, true, |out| {
                            jsonrpc::encode_error(out, error.id.as_deref(), 0, &error.message);
                        });
                        Flow::Next
                    } else {
                        Flow::Close
                    }
                }
                Ok(Some(Incoming::Reply(_) | Incoming::Close)) => Flow::Close,
                Err(_) => {
                    self.vars.protocol_errors += 1;
                    Flow::Close
                }
            };
            if !matches!(flow, Flow::Next) {
                break flow;
            }
        };
        drop(feed);
        let too_much = matches!(flow, Flow::Pause) && inbound.held_size() > WAITING_SIZE_MAX;
        if too_much || matches!(flow, Flow::Close) {
            self.end(entry);
        } else {
            self.put_conn(entry);
        }
    }

    fn on_frame(&mut self, link: &mut Link, frame: Frame<'_>) -> Flow {
        link.traffic.frames_in += 1;
        self.vars.traffic.frames_in += 1;
        match (&mut link.session, frame) {
            (Session::Greeting, Frame::Connect(connect)) => self.on_connect(link, &connect, None),
            (Session::Greeting, _) => Flow::Close,
            (Session::Authenticating(_), _) => Flow::Pause,
            (Session::Live(_), Frame::Send(send)) => {
                self.on_send_frame(link, &send);
                Flow::Next
            }
            (Session::Live(_), Frame::Recvack(ack)) => {
                self.on_recvack(link, ack.flags, ack.message_id);
                Flow::Next
            }
            (Session::Live(_), Frame::Ping) => {
                self.vars.pings += 1;
                self.write_frame(link, &Frame::Pong);
                Flow::Next
            }
            // A server's frames and what v2 ignores (protocol.md §1.2).
            (
                Session::Live(_),
                Frame::Connect(_)
                | Frame::Connack(_)
                | Frame::Sendack(_)
                | Frame::Recv(_)
                | Frame::Pong
                | Frame::Disconnect(_)
                | Frame::Sub(_)
                | Frame::Suback(_)
                | Frame::Event(_),
            ) => Flow::Next,
        }
    }

    fn on_rpc(&mut self, link: &mut Link, request: RpcRequest<'_>) -> Flow {
        link.traffic.frames_in += 1;
        self.vars.traffic.frames_in += 1;
        let id = request.id.unwrap_or_default();
        match (&mut link.session, request.call) {
            (Session::Greeting, RpcCall::Connect(connect)) => {
                self.on_rpc_connect(link, &connect, id.into_owned())
            }
            (Session::Greeting, _) => Flow::Close,
            (Session::Authenticating(_), _) => Flow::Pause,
            (Session::Live(_), RpcCall::Send(send)) => {
                self.on_rpc_send(link, send, id.into_owned());
                Flow::Next
            }
            (Session::Live(_), RpcCall::Recvack(ack)) => {
                self.on_recvack(link, ack.flags, ack.message_id);
                Flow::Next
            }
            (Session::Live(_), RpcCall::Ping) => {
                self.vars.pings += 1;
                self.write(link, true, |out| jsonrpc::encode_ping_result(out, &id));
                Flow::Next
            }
            (Session::Live(_), RpcCall::Connect(_) | RpcCall::Disconnect { .. }) => Flow::Next,
        }
    }
}
