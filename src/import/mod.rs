//! `jindou import`: copies what a running v2.2.5 lets be read into a node of ours (docs/import.md).
//!
//! The source is read through its public routes and data pages, the target written through
//! /migrate/* and read back. Every write may be made twice, and of a history only what the target
//! has not got is asked for: so there is no file of progress, and whoever was interrupted begins
//! again.

mod args;
mod copy;
mod peer;
mod progress;
mod side;
mod tally;
mod verify;

use std::collections::HashSet;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};

pub use args::ImportArgs;
use peer::{Fault, Peer};
use progress::Progress;
use side::Side;

/// How many channels that could not be copied to name.
const NAMED_MAX: usize = 20;
/// With so many bad channels something else is wrong.
const PROBLEMS_MAX: usize = 1000;

/// What v2.2.5 gives no way to read.
const UNREADABLE: &[&str] = &[
    "flags of channels other than ban and disband (large, send_ban, allow_stranger): set them again \
     with POST /channel/info",
    "marks of deleted conversations (POST /conversations/delete): they come back until deleted again",
    "conversations that wait in memory to be written, and their reading positions of the last minutes: \
     stop writers and wait some minutes before the last run",
    "positions in offline commands that were handed out and not acknowledged",
    "events and deltas of streams: the messages are copied, what was appended to them is not",
    "stream numbers of old clients (protocol 4 and before)",
    "recipients of temporary channels (type 8), which live in memory",
    "flags and lists of channels that have no row of their own and were never used, and lists of \
     channels with a / in their id",
    "tokens of devices where the source hides them; of others it is compared whether there is one, not \
     its text, for this server hides them too",
    "when channels, members, users and devices were made: they are as old as the import",
    "bindings of users to plugins, and plugins",
];

/// An import under way.
struct Run {
    source: Side,
    target: Side,
    progress: Progress,
    /// What was bad, and did not keep the rest from being copied.
    problems: Vec<String>,
}

impl Run {
    /// A bad channel is noted, and the import goes on; anything worse ends it.
    fn note(&mut self, done: Result<(), Fault>) -> Result<(), Fault> {
        match done {
            Err(Fault::Bad(what)) if self.problems.len() < PROBLEMS_MAX => {
                self.problems.push(what);
                Ok(())
            }
            done => done,
        }
    }
}

/// Copies, compares, and writes the table of both sides to `out`.
///
/// # Errors
/// A side is away for too long or refuses; something could not be copied; the sides differ.
pub fn run(args: &ImportArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let patience = Duration::from_secs(args.patience);
    let variable = |name: &str| std::env::var(name).ok();
    let from_token = args.from_token.clone().or_else(|| variable("JINDOU_IMPORT_FROM_TOKEN"));
    let token = args.token.clone().or_else(|| variable("WK_MANAGERTOKEN"));
    let pages = match (&args.manager, &args.user) {
        (Some(url), Some(user)) => {
            let password = args.password.clone().or_else(|| variable("JINDOU_IMPORT_PASSWORD"));
            let password = password.context("--manager wants a --password")?;
            let peer = Peer::new("the source's manager", url, None, patience);
            Some(peer.log_in(user, &password)?)
        }
        _ => None,
    };
    let api = Peer::new("the source", &args.from, from_token.as_deref(), patience);
    let source = Side { api, pages };
    let api = Peer::new("the target", &args.to, token.as_deref(), patience);
    let target = Side { api, pages: None };
    let mut run = Run { source, target, progress: Progress::new(), problems: Vec::new() };
    let unreachable = run.copy()?;
    let table = run.verify()?;
    run.progress.end();

    write!(out, "{table}")?;
    writeln!(out, "\nnot copied, since v2.2.5 gives no way to read it:")?;
    for what in UNREADABLE {
        writeln!(out, "- {what}")?;
    }
    if unreachable > 0 {
        writeln!(
            out,
            "- histories of {unreachable} channels whose ids no reader leads to, and their conversations"
        )?;
    }
    if !run.problems.is_empty() {
        writeln!(out, "\n{} problems:", run.problems.len())?;
        for problem in run.problems.iter().take(NAMED_MAX) {
            writeln!(out, "- {problem}")?;
        }
    }
    let differing = table.differing();
    if !differing.is_empty() {
        bail!(
            "the sides differ in {}; while the source is written to they must: stop its writers and \
             run again",
            differing.join(", ")
        );
    }
    if !run.problems.is_empty() {
        bail!("{} problems, told above", run.problems.len());
    }
    Ok(())
}

/// Channels that were met already: 16 bytes each.
#[derive(Default)]
struct Seen(HashSet<u128>);

impl Seen {
    /// Whether a channel is met for the first time.
    fn is_new(&mut self, id: &str, channel_type: u8) -> bool {
        self.0.insert(tally::hash_of(&(id, channel_type)))
    }
}
