//! The answers that routes share (http-api.md §1.4), and how replies of a shard become answers.

use http::StatusCode;
use jindou_core::request::{Failure, Reply};
use serde::Serialize;

use crate::{
    http::HttpResponse,
    json::{ReadError, to_json},
};

/// What a handler gives: an answer, or why not.
pub(crate) type Answer = Result<HttpResponse, Refusal>;

/// `EGET` of the reference: nobody leads the slot.
const NO_LEADER: &str = "获取频道所在节点失败！";

/// Why a call is refused: HTTP 400 with the text, but for a missing right. Nothing was changed, but for a time-out, after
/// which the change may still take effect.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// A rule of the route.
    #[error("{0}")]
    Rule(&'static str),
    /// The body can't be read.
    #[error("{0}")]
    Body(#[from] ReadError),
    /// The body can't be read, in routes that say so before the cause.
    #[error("数据格式有误！: {0}")]
    Format(ReadError),
    /// An id or text is over its bound.
    #[error("{what} is longer than {max} bytes")]
    TooLong {
        /// Which.
        what: &'static str,
        /// Its bound.
        max: usize,
    },
    /// A list is over its bound.
    #[error("more than {max} of {what} in one request")]
    TooMany {
        /// Which.
        what: &'static str,
        /// Its bound.
        max: usize,
    },
    /// The shard did not carry it out.
    #[error("{0}")]
    Failed(Failure),
    /// What the node says.
    #[error("{0}")]
    Told(String),
    /// The caller may not do this: HTTP 403, where v2 answers 400 (operations.md §3.14).
    #[error("没有权限")]
    NoRight,
    /// The shard gave an answer to another question.
    #[error("internal error")]
    Confused,
}

impl Refusal {
    /// The refusal for a failure; `storage` is the route's own text for a failed store.
    pub(crate) fn of(failure: Failure, storage: &'static str) -> Self {
        match failure {
            Failure::NoLeader => Self::Rule(NO_LEADER),
            Failure::Storage if !storage.is_empty() => Self::Rule(storage),
            Failure::Timeout | Failure::Busy | Failure::Storage | Failure::TooLarge => {
                Self::Failed(failure)
            }
        }
    }

    /// The refusal for a reply that is not the hoped for one.
    pub(crate) fn by(reply: &Reply, storage: &'static str) -> Self {
        if let Reply::Failed(failure) = reply {
            Self::of(*failure, storage)
        } else {
            Self::Confused
        }
    }

    /// `ERR(text)`, with the status of a missing right where that is the reason.
    pub(crate) fn into_response(self) -> HttpResponse {
        #[derive(Serialize)]
        struct Body {
            msg: String,
            status: u16,
        }

        let status = match self {
            Self::NoRight => StatusCode::FORBIDDEN,
            Self::Rule(_)
            | Self::Body(_)
            | Self::Format(_)
            | Self::TooLong { .. }
            | Self::TooMany { .. }
            | Self::Failed(_)
            | Self::Told(_)
            | Self::Confused => StatusCode::BAD_REQUEST,
        };
        let body = Body { msg: self.to_string(), status: status.as_u16() };
        HttpResponse::json(status, to_json(&body))
    }
}

/// `LIST(x)` or `OBJ(x)`.
pub(crate) fn value<T: Serialize + ?Sized>(value: &T) -> HttpResponse {
    HttpResponse::json(StatusCode::OK, to_json(value))
}

/// `STATUS(n)`.
pub(crate) fn status(status: u16) -> HttpResponse {
    #[derive(Serialize)]
    struct Body {
        status: u16,
    }

    value(&Body { status })
}

/// `OK`.
pub(crate) fn ok() -> HttpResponse {
    status(200)
}

/// `OK-DATA(x)`.
pub(crate) fn ok_data<T: Serialize>(data: T) -> HttpResponse {
    #[derive(Serialize)]
    struct Body<T> {
        data: T,
        status: u16,
    }

    value(&Body { data, status: 200 })
}

/// The answer to a change.
pub(crate) fn done(reply: &Reply, storage: &'static str) -> Answer {
    match reply {
        Reply::Done => Ok(ok()),
        Reply::Refused(code) => Ok(status(u16::from(*code as u8))),
        Reply::Sent { .. }
        | Reply::LastSeq(_)
        | Reply::Messages(_)
        | Reply::Digests(_)
        | Reply::List(_)
        | Reply::Info(_)
        | Reply::Online(_)
        | Reply::Conversations(_)
        | Reply::Connections(_)
        | Reply::Vars(_)
        | Reply::ClusterKeys(_)
        | Reply::Found(_)
        | Reply::Event(_)
        | Reply::StreamRefused(_)
        | Reply::StreamClaim(_)
        | Reply::Streams(_)
        | Reply::Scanned(_)
        | Reply::Failed(_) => Err(Refusal::by(reply, storage)),
    }
}
