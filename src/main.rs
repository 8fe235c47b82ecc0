//! The `jindou` binary.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

use jindou_storage::dir::DataDir;

use jindou::cli::{Cli, Command};
use jindou::{admin, config, daemon, import, log, node};

/// Decision 0012.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Of a huge page that is touched once, all counts as used: 150 MB of a node that has just begun.
    // Where the kernel does not know the word there is nothing to refuse.
    let _ = nix::sys::prctl::set_thp_disable(true);
    let cli = Cli::parse();
    let ended = run(&cli);
    log::flush();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There may be nobody to tell.
            let _ = writeln!(std::io::stderr(), "jindou: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    match &cli.command {
        Some(Command::Bench { args }) => jindou_bench::run(args.iter().cloned()),
        Some(Command::Cluster(args)) => {
            admin::run(args, &cli.sources(), &mut std::io::stdout().lock())
        }
        Some(Command::Import(args)) => import::run(args, &mut std::io::stdout().lock()),
        Some(Command::Config { example: true }) => {
            print!("{}", config::example());
            Ok(())
        }
        Some(Command::Config { example: false }) => {
            let config = config::load(&cli.sources())?;
            for notice in &config.notices {
                eprintln!("warning: {notice}");
            }
            print!("{}", config.show());
            Ok(())
        }
        Some(Command::Stop) => daemon::stop(),
        None => match &cli.pingback {
            None if cli.daemon => daemon::detach(std::env::args_os().skip(1)),
            None => serve(cli, || ()),
            Some(parent) => {
                let detached = daemon::Detached::begin(parent)?;
                serve(cli, detached.serving())
            }
        },
    }
}

/// Runs the node, and tells when it serves.
fn serve(cli: &Cli, serving: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let config = config::load(&cli.sources())?;
    // What is not ours is not touched, by log files neither.
    DataDir::look(&config.data_dir)?;
    log::start(&config.logging, !cli.no_stdout)?;
    for notice in &config.notices {
        tracing::warn!("{notice}");
    }
    for door in config.open_doors() {
        tracing::warn!("{door}");
    }
    let ended = node::run(&config, serving);
    if let Err(error) = &ended {
        tracing::error!("the node ends: {error:#}");
    }
    ended
}
