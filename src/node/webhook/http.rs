//! Webhooks over HTTP (http-api.md §19.2): POST, JSON, success is status 200 and nothing else.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use ureq::Agent;

use super::call::{CallError, Post};
use crate::config::Secret;

/// v2's times.
const CONNECT_MAX: Duration = Duration::from_secs(5);
const ANSWER_MAX: Duration = Duration::from_secs(10);
const TOTAL_MAX: Duration = Duration::from_secs(30);
/// What of an answer's body is read, so that the connection can be used again.
const ANSWER_SIZE_MAX: u64 = 64 << 10;

/// The way to one URL. Its copies share their connections.
#[derive(Clone)]
pub(super) struct HttpPost {
    agent: Agent,
    url: String,
    secret: Option<Secret>,
}

impl HttpPost {
    pub(super) fn new(url: &str, secret: Option<Secret>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_MAX))
            .timeout_recv_response(Some(ANSWER_MAX))
            .timeout_global(Some(TOTAL_MAX))
            .max_idle_connections_per_host(super::OFFLINE_THREAD_COUNT + 2)
            .max_idle_connections(2 * super::OFFLINE_THREAD_COUNT)
            .user_agent("jindou")
            .proxy(None)
            .build();
        Self { agent: Agent::new_with_config(config), url: url.to_owned(), secret }
    }
}

impl Post for HttpPost {
    fn post(&mut self, event: &str, body: &Bytes) -> Result<(), CallError> {
        let url = format!("{}?event={event}", self.url);
        let mut request = self.agent.post(&url).header("Content-Type", "application/json");
        if let Some(secret) = &self.secret {
            let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            request = request
                .header("X-Jindou-Timestamp", time.to_string())
                .header("X-Jindou-Signature", signature(secret, time, body));
        }
        let mut answer =
            request.send(&body[..]).map_err(|error| CallError::Away(error.to_string()))?;
        let status = answer.status().as_u16();
        // Whatever it says: read for the sake of the connection.
        let _ = answer.body_mut().with_config().limit(ANSWER_SIZE_MAX).read_to_vec();
        match status {
            200 => Ok(()),
            408 | 429 | 502..=504 => Err(CallError::Away(format!("status {status}"))),
            _ => Err(CallError::Refused(format!("status {status}"))),
        }
    }
}

/// Hexadecimal HMAC-SHA256 with the secret over the Unix time in seconds, a dot, and the body.
fn signature(secret: &Secret, time: u64, body: &[u8]) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.reveal().as_bytes()) else {
        // HMAC takes keys of any length.
        return String::new();
    };
    mac.update(time.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_what_openssl_says() {
        // printf '1735689600.[1]' | openssl dgst -sha256 -hmac key
        let secret = Secret::new("key".to_owned());
        assert_eq!(
            signature(&secret, 1_735_689_600, b"[1]"),
            "cec7f12a84546430b14e879586912c341607ee6eb67d48bc0ded34d06ce3189e"
        );
    }
}
