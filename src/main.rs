//! The `jindou` binary.

use std::process::ExitCode;

use clap::Parser;

use jindou::cli::{Cli, Command};
use jindou::{admin, config, log, node};

/// Decision 0012.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Of a huge page that is touched once, all counts as used: 150 MB of a node that has just begun.
    // Where the kernel does not know the word there is nothing to refuse.
    let _ = nix::sys::prctl::set_thp_disable(true);
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("jindou: {error:#}");
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
        None => {
            let config = config::load(&cli.sources())?;
            log::start(&config.logging)?;
            for notice in &config.notices {
                tracing::warn!("{notice}");
            }
            for door in config.open_doors() {
                tracing::warn!("{door}");
            }
            node::run(&config)
        }
    }
}
