//! The datasource (http-api.md §20): a back end that knows the system accounts. As in v2.2.5 it is
//! asked for them once, and what it says holds as long as the process lives; of its other questions
//! none is ever asked. A thread asks at the start, after pauses, and when a shard is about to refuse a
//! send: the shard waits for the answer, but not long.

use std::{
    sync::{Arc, OnceLock, atomic::Ordering},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use jindou_core::{effect::Event, id::Name};
use jindou_net::Handle;
use ureq::Agent;

use super::{Running, health::NodeHealth, webhook::Backoff};
use crate::config::Outside;

/// The question, as v2 writes it.
const QUESTION: &str = r#"{"cmd":"getSystemUIDs","data":{}}"#;
const CALL_MAX: Duration = Duration::from_secs(10);
const ANSWER_SIZE_MAX: u64 = 4 << 20;
/// As many system accounts as a cluster may have.
const COUNT_MAX: usize = 10_000;

/// What every shard hears of the datasource.
#[derive(Clone)]
pub(super) struct Datasource {
    /// By shard.
    answers: Arc<[flume::Receiver<Answer>]>,
    questions: flume::Sender<()>,
}

/// [`Event::SystemsSourced`].
type Answer = Option<Arc<[Name]>>;

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("{0}")]
    Call(#[from] ureq::Error),
    #[error("status {0}")]
    Status(u16),
    #[error("the answer is no list of uids: {0}")]
    Answer(#[from] serde_json::Error),
    #[error("the answer has {0} uids, more than {COUNT_MAX}")]
    TooMany(usize),
}

impl Datasource {
    /// Asks, if there is a datasource, and goes on asking until it answers.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(
        outside: &Outside,
        shard_count: u16,
        running: &Arc<OnceLock<Running>>,
        health: &Arc<NodeHealth>,
    ) -> anyhow::Result<Self> {
        let (shards, answers): (Vec<_>, Vec<_>) =
            (0..shard_count).map(|_| flume::unbounded()).unzip();
        // One that waits stands for all.
        let (questions, asked) = flume::bounded(1);
        if let Some(url) = outside.datasource.clone() {
            let (running, health) = (running.clone(), health.clone());
            let tell = move |answer: Answer| {
                for shard in &shards {
                    // A shard that has ended wants to know nothing.
                    let _ = shard.send(answer.clone());
                }
                if let Some(running) = running.get() {
                    running.wake();
                }
            };
            thread::Builder::new()
                .name("datasource".into())
                .spawn(move || ask_until_answered(&url, &asked, &health, tell))
                .context("no thread for the datasource")?;
        }
        Ok(Self { answers: answers.into(), questions })
    }

    /// [`jindou_core::effect::Effect::AskSystems`].
    pub(super) fn ask(&self) {
        // Full: it is about to be asked. Nobody there: it has answered.
        let _ = self.questions.try_send(());
    }

    /// Has a shard hear the answer.
    pub(super) fn listen(&self, handle: &Handle, shard: usize) {
        let Some(answers) = self.answers.get(shard).cloned() else {
            return;
        };
        handle.add_source(move |handle| {
            for uids in answers.try_iter() {
                handle.push(Event::SystemsSourced { uids });
            }
            false
        });
    }
}

fn ask_until_answered(
    url: &str,
    asked: &flume::Receiver<()>,
    health: &NodeHealth,
    tell: impl Fn(Answer),
) {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(CALL_MAX))
        .user_agent("jindou")
        .proxy(None)
        .build();
    let agent = Agent::new_with_config(config);
    let mut backoff = Backoff::default();
    let mut last = String::new();
    loop {
        match ask(&agent, url) {
            Ok(uids) => {
                tracing::info!("the datasource has named {} system account(s)", uids.len());
                return tell(Some(uids));
            }
            Err(error) => {
                health.datasource_failures.fetch_add(1, Ordering::Relaxed);
                let error = error.to_string();
                // The same is said once.
                if error != last {
                    tracing::warn!("the datasource is asked again for system accounts: {error}");
                    last = error;
                }
                tell(None);
            }
        }
        if asked.recv_timeout(backoff.next()) == Err(flume::RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

fn ask(agent: &Agent, url: &str) -> Result<Arc<[Name]>, AskError> {
    let request = agent.post(url).header("Content-Type", "application/json");
    let mut answer = request.send(QUESTION)?;
    let status = answer.status().as_u16();
    if status != 200 {
        return Err(AskError::Status(status));
    }
    let body = answer.body_mut().with_config().limit(ANSWER_SIZE_MAX).read_to_vec()?;
    parse(&body)
}

/// `null` is an empty list, as for Go. Blank uids are nobody's.
fn parse(body: &[u8]) -> Result<Arc<[Name]>, AskError> {
    let uids: Option<Vec<String>> = serde_json::from_slice(body)?;
    let uids = uids.unwrap_or_default();
    if uids.len() > COUNT_MAX {
        return Err(AskError::TooMany(uids.len()));
    }
    Ok(uids.into_iter().filter(|uid| !uid.trim().is_empty()).map(Name::from).collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_a_list_of_uids_is_an_answer() {
        assert_eq!(&*parse(br#"["a"," ","b"]"#).unwrap(), ["a".into(), "b".into()]);
        assert!(parse(b"null").unwrap().is_empty());
        for bad in [&b""[..], b"{}", b"[1]", b"\"a\"", br#"{"status":400}"#] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        let many = serde_json::to_vec(&vec!["u"; COUNT_MAX + 1]).unwrap();
        assert!(matches!(parse(&many), Err(AskError::TooMany(10_001))));
    }
}
