//! One side of an import: questions to an HTTP API, repeated while it is away.

use std::time::{Duration, Instant};

use jindou_bench::http::Api;
use serde::de::DeserializeOwned;

/// The first and the longest pause between two tries.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often the same question may be refused: a slot may have no leader for a while.
const REFUSALS_MAX: u32 = 6;
/// How often it may be answered with something else: an answer may have been cut off.
const DAMAGES_MAX: u32 = 2;
/// How much of a bad answer to show.
const SHOWN_SIZE: usize = 200;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The side has been away for as long as one may wait, or does not let the caller in: the
    /// import ends.
    #[error("{0}")]
    Away(String),
    /// What was asked is refused, or answered with something else; the rest may be fine.
    #[error("{0}")]
    Bad(String),
}

/// The API of one side.
pub(super) struct Peer {
    name: &'static str,
    url: String,
    token: Option<String>,
    login: Option<String>,
    patience: Duration,
}

impl Peer {
    /// The API of `name` (`the source`), which `token` opens.
    pub(super) fn new(
        name: &'static str,
        url: &str,
        token: Option<&str>,
        patience: Duration,
    ) -> Self {
        let token = token.filter(|token| !token.trim().is_empty()).map(str::to_owned);
        Self { name, url: url.to_owned(), token, login: None, patience }
    }

    /// Logs in at a manager port.
    pub(super) fn log_in(mut self, user: &str, password: &str) -> Result<Self, Fault> {
        #[derive(serde::Deserialize)]
        struct Login {
            token: String,
        }

        let body = serde_json::json!({ "username": user, "password": password });
        let login: Login = self.post("/manager/login", &body)?;
        self.login = Some(login.token);
        Ok(self)
    }

    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Fault> {
        self.ask("GET", path, "")
    }

    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<T, Fault> {
        self.ask("POST", path, &body.to_string())
    }

    /// An answer, after as many tries as it takes.
    fn ask<T: DeserializeOwned>(&self, method: &str, path: &str, body: &str) -> Result<T, Fault> {
        let began = Instant::now();
        let (mut pause, mut refusals, mut damages) = (PAUSE_MIN, 0, 0);
        loop {
            let api = Api::new(&self.url, self.token.as_deref());
            let answer = api.with_login(self.login.as_deref()).ask(method, path, body);
            let fault = match answer {
                Ok((200, text)) => match serde_json::from_str(&text) {
                    Ok(answer) => return Ok(answer),
                    Err(error) => {
                        damages += 1;
                        Fault::Bad(self.told(method, path, &format!("{error}: {}", shown(&text))))
                    }
                },
                Ok((status @ (401 | 403), _)) => {
                    let why = format!("{status}, the token or log-in is missing or not enough");
                    return Err(Fault::Away(self.told(method, path, &why)));
                }
                Ok((status, text)) => {
                    // What is not there does not come by asking again.
                    refusals = if status == 404 { REFUSALS_MAX + 1 } else { refusals + 1 };
                    Fault::Bad(self.told(method, path, &format!("{status}: {}", shown(&text))))
                }
                Err(error) => Fault::Away(self.told(method, path, &format!("{error:#}"))),
            };
            match fault {
                Fault::Away(_) if began.elapsed() < self.patience => {}
                Fault::Bad(_) if refusals <= REFUSALS_MAX && damages <= DAMAGES_MAX => {}
                Fault::Away(_) | Fault::Bad(_) => return Err(fault),
            }
            // There is no event to wait for: the other side is another program, and says nothing.
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn told(&self, method: &str, path: &str, what: &str) -> String {
        format!("{} ({}) to {method} {path}: {what}", self.name, self.url)
    }
}

/// The beginning of an answer, fit for a terminal.
fn shown(text: &str) -> String {
    let mut shown: String = text.trim().chars().take(SHOWN_SIZE).collect();
    if shown.len() < text.trim().len() {
        shown.push('…');
    }
    shown.escape_debug().to_string()
}

/// A text as a part of a path or a query.
pub(super) fn encoded(text: &str) -> String {
    use std::fmt::Write as _;

    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~@".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fit_paths_and_terminals() {
        assert_eq!(encoded("a@b/c d?"), "a@b%2Fc%20d%3F");
        assert_eq!(encoded("群"), "%E7%BE%A4");
        assert_eq!(shown(" a\x1b[2J \n"), "a\\u{1b}[2J");
        assert!(shown(&"x".repeat(1000)).chars().count() <= SHOWN_SIZE + 1);
    }
}
