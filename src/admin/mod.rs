//! `jindou cluster`: what an operator asks of a running cluster, over the HTTP API of one node
//! (http-api.md §17).
//!
//! It knows the routes and nothing of the node that answers them, so it works from any machine that
//! reaches one.

mod args;
mod document;

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use jindou_bench::http::Api;
use serde::Deserialize;

pub use args::{ClusterArgs, ClusterCommand};
use document::Document;

use crate::config::{self, Config, ListenAddr, Sources};

/// How often to look whether a removed node is gone.
const PAUSE: Duration = Duration::from_secs(1);
/// How many looks in a row may fail: a node that restarts is away for that long.
const FAILURES_MAX: u32 = 30;
/// How many slots without a leader to name.
const NAMED_MAX: usize = 20;

/// Carries out a command, and writes what an operator wants to read to `out`.
///
/// # Errors
/// The server can't be reached or refuses; for `status`: a slot has no leader.
pub fn run(args: &ClusterArgs, sources: &Sources, out: &mut dyn Write) -> anyhow::Result<()> {
    let from_environment = std::env::var("WK_MANAGERTOKEN").ok();
    let server = Server::find(args, from_environment, || Ok(config::load(sources)?))?;
    server.carry_out(&args.command, out, PAUSE)
}

/// Which server to ask, and the token that opens it.
#[derive(Debug, PartialEq, Eq)]
struct Server {
    url: String,
    token: Option<String>,
}

/// An error as the API words it.
#[derive(Deserialize)]
struct Refusal {
    msg: String,
}

impl Server {
    /// Arguments win over the environment, that over the settings. Settings are only read for the
    /// node on this machine: their token must not go to a server that somebody typed.
    fn find(
        args: &ClusterArgs,
        from_environment: Option<String>,
        load: impl FnOnce() -> anyhow::Result<Config>,
    ) -> anyhow::Result<Server> {
        let given = args.token.clone().or(from_environment);
        let given = given.filter(|token| !token.trim().is_empty());
        if let Some(url) = &args.server {
            return Ok(Server { url: url.clone(), token: given });
        }
        let config = load().context("no --server is given, and the settings can't be read")?;
        let of_settings = || {
            let token = config.admission.manager_token.as_ref();
            token.map(|token| token.reveal().to_owned())
        };
        Ok(Server { url: local(&config.listen.http), token: given.or_else(of_settings) })
    }

    fn carry_out(
        &self,
        command: &ClusterCommand,
        out: &mut dyn Write,
        pause: Duration,
    ) -> anyhow::Result<()> {
        match command {
            ClusterCommand::Status => self.status(out),
            ClusterCommand::Move { slot, from, to } => {
                let body = format!(r#"{{"migrate_from":{from},"migrate_to":{to}}}"#);
                self.ask("POST", &format!("/cluster/slots/{slot}/migrate"), &body)?;
                writeln!(
                    out,
                    "slot {slot} moves from node {from} to node {to}; `jindou cluster status` \
                     counts it as moving until it is there"
                )?;
                Ok(())
            }
            ClusterCommand::Remove { node, no_wait } => {
                self.ask("POST", &format!("/cluster/nodes/{node}/remove"), "{}")?;
                writeln!(
                    out,
                    "node {node} is being removed; this goes on by itself, `jindou cluster keep \
                     {node}` takes it back"
                )?;
                if *no_wait {
                    return Ok(());
                }
                self.wait_until_gone((*node).into(), out, pause)
            }
            ClusterCommand::Keep { node } => {
                self.ask("POST", &format!("/cluster/nodes/{node}/keep"), "{}")?;
                writeln!(out, "node {node} stays")?;
                Ok(())
            }
            ClusterCommand::Replace { node, addr } => {
                let body = serde_json::json!({ "addr": addr }).to_string();
                self.ask("POST", &format!("/cluster/nodes/{node}/replace"), &body)?;
                writeln!(
                    out,
                    "node {node} is from now on expected at {addr}. Start it there with \
                     WK_CLUSTER_NODEID={node}; an empty data directory is filled by the others"
                )?;
                Ok(())
            }
        }
    }

    fn status(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let document = self.document()?;
        document.show(out)?;
        let without = document.without_leader();
        if without.is_empty() {
            return Ok(());
        }
        let mut named: Vec<_> = without.iter().take(NAMED_MAX).map(u16::to_string).collect();
        if without.len() > NAMED_MAX {
            named.push("…".to_owned());
        }
        bail!("slots without a leader ({}): {}", without.len(), named.join(", "))
    }

    /// Looks until a node that is leaving is no member any more, and tells how far it is.
    fn wait_until_gone(
        &self,
        node: u64,
        out: &mut dyn Write,
        pause: Duration,
    ) -> anyhow::Result<()> {
        let (mut was_leaving, mut failures, mut told) = (false, 0, None);
        loop {
            match self.document() {
                Ok(document) => {
                    failures = 0;
                    let Some(member) = document.node(node) else {
                        writeln!(out, "node {node} is removed: it can be stopped")?;
                        return Ok(());
                    };
                    if was_leaving && !member.is_leaving() {
                        bail!("node {node} stays: somebody took its removal back");
                    }
                    was_leaving = was_leaving || member.is_leaving();
                    let share = document.share(node);
                    if told.replace(share) != Some(share) {
                        writeln!(out, "node {node} still {share}")?;
                        out.flush()?;
                    }
                }
                Err(error) if failures == FAILURES_MAX => {
                    return Err(error.context(
                        "the removal goes on, but this server does not tell how far it is; ask \
                         another node with `jindou cluster status --server URL`",
                    ));
                }
                Err(_) => failures += 1,
            }
            std::thread::sleep(pause);
        }
    }

    fn document(&self) -> anyhow::Result<Document> {
        let text = self.ask("GET", "/cluster/info", "")?;
        let document: Document =
            serde_json::from_str(&text).context("GET /cluster/info: not what was expected")?;
        // A cluster without slots must not look as if all was well.
        ensure!(!document.is_empty(), "GET /cluster/info: it tells of no nodes or no slots");
        Ok(document)
    }

    /// The body of an answer with status 200; every other one is an error in plain words.
    fn ask(&self, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
        let api = Api::new(&self.url, self.token.as_deref());
        let (status, text) = api
            .ask(method, path, body)
            .with_context(|| format!("{} does not answer; --server names another", self.url))?;
        match status {
            200 => Ok(text),
            401 => bail!(
                "the server wants its manager token: --token or WK_MANAGERTOKEN (the settings' \
                 managerToken)"
            ),
            403 => bail!(
                "no managerToken is set there, so the server takes changes from its own machine \
                 only: run this there, or set one"
            ),
            404 => bail!("{} has no {path}: it is no Jindou with a cluster", self.url),
            _ => match serde_json::from_str::<Refusal>(&text) {
                Ok(refusal) => bail!("refused: {}", refusal.msg.escape_debug()),
                Err(_) => bail!("{method} {path} answered {status}"),
            },
        }
    }
}

/// The URL at which a listener is reached from its own machine.
fn local(listener: &ListenAddr) -> String {
    let port = listener.port;
    match listener.host.as_str() {
        "" | "0.0.0.0" => format!("http://127.0.0.1:{port}"),
        "::" => format!("http://[::1]:{port}"),
        _ => format!("http://{listener}"),
    }
}

#[cfg(test)]
mod tests;
