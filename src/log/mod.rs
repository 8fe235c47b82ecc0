//! The log: JSON objects in the shape of v2.2.5 in files below `logger.dir`, and on stdout the same or, on
//! a terminal, text (operations.md §2.4).
//!
//! Who logs never waits for a disk or a pipe: a line goes into a bounded queue, and a thread writes it.
//! What finds the queue full is dropped, counted ([`dropped`]) and told in the log when it moves again.
//!
//! Tokens, keys and message bodies are never logged (G19): hold them in types whose `Debug` hides them
//! ([`crate::config::Secret`]), and log ids and sizes. What happens per message is `trace`, what happens
//! per connection or request `debug`; neither is formatted unless the level asks for it. What an operator
//! watches for, starts and stops above all, has the target [`FOCUS`].

mod files;
mod json;
mod queue;

use std::backtrace::Backtrace;
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::config::{Level, LogFormat, Logging};
use files::{Files, Place};
use json::Json;
use queue::{Queue, Sink};

/// Lines of this target also stand in focus.log.
pub const FOCUS: &str = "jindou::focus";

/// How long the end of the process waits for lines that are still under way.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// The queues of this process.
static QUEUES: OnceLock<Vec<Queue>> = OnceLock::new();
/// Lines that were not written.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Starts logging for the whole process: to files, and to stdout if wanted. `RUST_LOG`, in the usual
/// syntax, replaces the level when set. Where the files cannot be had, stdout is told and has to do.
///
/// # Errors
/// Logging was started before, `RUST_LOG` does not parse, no thread can be started, or there is neither
/// stdout nor files.
pub fn start(logging: &Logging, stdout: bool) -> anyhow::Result<()> {
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = Vec::new();
    let mut queues = Vec::new();
    if stdout {
        let queue = Queue::start("log-stdout", Stdout)?;
        layers.push(stdout_layer(logging, queue.clone())?);
        queues.push(queue);
    }
    let mut no_files = None;
    match Files::open(&logging.dir) {
        Ok(files) => {
            let queue = Queue::start("log-files", files)?;
            layers.push(files_layer(logging, queue.clone())?);
            log_panics(queue.clone());
            queues.push(queue);
        }
        Err(error) => {
            let text = format!("cannot write log files to {}: {error}", logging.dir.display());
            anyhow::ensure!(stdout, text);
            no_files = Some(text);
        }
    }
    tracing_subscriber::registry().with(layers).try_init().context("cannot start the log")?;
    QUEUES.get_or_init(|| queues);
    if let Some(text) = no_files {
        tracing::warn!("{text}; lines go to stdout only");
    }
    Ok(())
}

/// Waits until what was logged is written, at most a second.
pub fn flush() {
    for queue in QUEUES.get().into_iter().flatten() {
        queue.flush(FLUSH_MAX);
    }
}

/// How many lines were dropped since the start, because a disk or a pipe was too slow or failed.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

fn stdout_layer(
    logging: &Logging,
    queue: Queue,
) -> anyhow::Result<Box<dyn Layer<Registry> + Send + Sync>> {
    let terminal = io::stdout().is_terminal();
    let json = match logging.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    let line_numbers = logging.line_numbers;
    let layer = tracing_subscriber::fmt::layer().with_writer(ToStdout(queue)).with_ansi(terminal);
    let filter = filter(logging.level)?;
    Ok(if json {
        layer.event_format(Json { line_numbers }).with_filter(filter).boxed()
    } else {
        layer.with_file(line_numbers).with_line_number(line_numbers).with_filter(filter).boxed()
    })
}

/// Warnings and errors stand in their files whatever the level.
fn files_layer(
    logging: &Logging,
    queue: Queue,
) -> anyhow::Result<Box<dyn Layer<Registry> + Send + Sync>> {
    let level = if logging.level == Level::Error { Level::Warn } else { logging.level };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(ToFiles(queue))
        .with_ansi(false)
        .event_format(Json { line_numbers: logging.line_numbers })
        .with_filter(filter(level)?);
    Ok(layer.boxed())
}

fn filter(level: Level) -> anyhow::Result<EnvFilter> {
    let directives = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => directives,
        _ => directives(level),
    };
    EnvFilter::try_new(directives).context("RUST_LOG")
}

/// Our crates at the level asked for, libraries at warnings: their debug lines come per I/O. openraft
/// warns of every frame that a node which is away does not answer; the links say once that it is.
fn directives(level: Level) -> String {
    let (ours, theirs) = match level {
        Level::Debug => ("debug", "warn"),
        Level::Info => ("info", "warn"),
        Level::Warn => ("warn", "warn"),
        Level::Error => ("error", "error"),
    };
    format!("{theirs},openraft=error,{FOCUS}=info,jindou={ours}")
}

/// Writes panics to panic.log, beside what is done about them anyway.
fn log_panics(queue: Queue) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        before(info);
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let stack = Backtrace::force_capture().to_string();
        queue.push(Place::Panic, json::panic_line(message(info), &place, &stack));
    }));
}

fn message<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or_default()
}

/// Gives each event's line to the queue of stdout.
struct ToStdout(Queue);

/// Gives each event's line to the queue of the files.
struct ToFiles(Queue);

/// Takes one line.
struct Entry {
    queue: Queue,
    places: &'static [Place],
}

impl Write for Entry {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        for place in self.places {
            self.queue.push(*place, line.to_vec());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for ToStdout {
    type Writer = Entry;

    fn make_writer(&'a self) -> Entry {
        Entry { queue: self.0.clone(), places: &[Place::Info] }
    }
}

impl<'a> MakeWriter<'a> for ToFiles {
    type Writer = Entry;

    fn make_writer(&'a self) -> Entry {
        Entry { queue: self.0.clone(), places: &[Place::Info] }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Entry {
        let places: &[Place] = match *event.level() {
            tracing::Level::ERROR => &[Place::Error],
            tracing::Level::WARN => &[Place::Warn],
            _ if event.target() == FOCUS => &[Place::Info, Place::Focus],
            _ => &[Place::Info],
        };
        Entry { queue: self.0.clone(), places }
    }
}

struct Stdout;

impl Sink for Stdout {
    fn write(&mut self, _: Place, lines: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(lines)?;
        stdout.flush()
    }
}
