//! The command line (operations.md §1.2). Spelled as v2.2.5 spells it, so that scripts and images work
//! unchanged: boolean flags may carry a value (`--ignoreMissingConfig=true`).

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Parser, Subcommand};

use crate::admin::ClusterArgs;
use crate::config::Sources;
use crate::import::ImportArgs;

/// A message server that WuKongIM v2.2.5 clients, back ends and deployments use unchanged.
#[derive(Debug, Parser)]
#[command(name = "jindou", version, args_override_self = true)]
#[command(after_help = "Without a command the server runs, with data below $HOME/wukongim.\n\
    Every setting is also an environment variable: see `jindou config --example`.")]
pub struct Cli {
    /// What to do instead of running the server
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Settings to read (.yaml, .yml, .json, .toml); WK_* variables win over them
    #[arg(long, value_name = "FILE", global = true, value_parser = path())]
    pub config: Option<PathBuf>,

    /// Go on without the file when it cannot be used
    #[arg(
        short = 'i',
        long = "ignoreMissingConfig",
        global = true,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        value_parser = boolean
    )]
    pub ignore_missing_config: bool,

    /// Run the node detached; come back when it serves. `stop` in the same directory ends it
    #[arg(
        short = 'd',
        long = "daemon",
        global = true,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        value_parser = boolean
    )]
    pub daemon: bool,

    /// Log to files only
    #[arg(
        long = "noStdout",
        global = true,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        value_parser = boolean
    )]
    pub no_stdout: bool,

    /// Whom a detached node tells that it serves: what `--daemon` starts it with
    #[arg(long, value_name = "ADDR", global = true, hide = true)]
    pub pingback: Option<String>,

    /// Run mode where the settings name none: debug, release, bench, test
    #[arg(long, value_name = "MODE", global = true)]
    pub mode: Option<String>,
}

/// What to do instead of running the server.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the settings in force and where each came from
    Config {
        /// Print an example file with every key, its default and meaning instead
        #[arg(long)]
        example: bool,
    },
    /// End the node that was started with --daemon from this directory
    Stop,
    /// Look at a running cluster, and change it
    Cluster(ClusterArgs),
    /// Copy users, channels, histories and conversations from a running v2.2.5
    Import(ImportArgs),
    /// Put load on a server and measure it: send, fanout, idle
    #[command(disable_help_flag = true)]
    Bench {
        /// Arguments of the load generator
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        args: Vec<OsString>,
    },
}

impl Cli {
    /// Where settings are to be read from.
    pub fn sources(&self) -> Sources {
        Sources {
            // An empty path is none, as for v2.2.5.
            file: self.config.clone().filter(|path| !path.as_os_str().is_empty()),
            ignore_missing: self.ignore_missing_config,
            mode: self.mode.clone().filter(|mode| !mode.is_empty()),
        }
    }
}

/// A path, which may be empty: scripts write `--config=$FILE`.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// A boolean as Go's flag parser reads it.
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("wanted true or false".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use clap::CommandFactory;

    use super::*;

    fn parse(args: &[&str]) -> Cli {
        Cli::try_parse_from(std::iter::once("jindou").chain(args.iter().copied())).unwrap()
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_images_command_line_works() {
        let cli = parse(&["--config=/root/wukongim/wk.yaml", "--ignoreMissingConfig=true"]);
        let sources = cli.sources();
        assert_eq!(sources.file, Some(PathBuf::from("/root/wukongim/wk.yaml")));
        assert!(sources.ignore_missing && cli.command.is_none());
    }

    #[test]
    fn flags_work_in_all_their_forms_and_after_the_command() {
        assert!(parse(&["-i"]).ignore_missing_config);
        assert!(parse(&["--ignoreMissingConfig", "--config", "a.yaml"]).ignore_missing_config);
        assert!(!parse(&["--ignoreMissingConfig=F"]).ignore_missing_config);
        assert!(!parse(&[]).ignore_missing_config);
        let cli = parse(&["config", "--config", "b.yaml", "--mode", "release"]);
        assert_eq!(cli.sources().file, Some(PathBuf::from("b.yaml")));
        assert_eq!(cli.sources().mode.as_deref(), Some("release"));
        assert!(matches!(cli.command, Some(Command::Config { example: false })));
        assert_eq!(parse(&["--config="]).sources().file, None);
    }

    #[test]
    fn detaching_is_spelled_as_in_v2() {
        for args in [&["-d"][..], &["--daemon"], &["--daemon=true"], &["-id"], &["-d=T"]] {
            assert!(parse(args).daemon, "{args:?}");
        }
        let cli = parse(&["-d", "--pingback", "127.0.0.1:1", "--noStdout"]);
        assert!(cli.daemon && cli.no_stdout);
        assert_eq!(cli.pingback.as_deref(), Some("127.0.0.1:1"));
        let cli = parse(&["stop", "--config=x", "-i"]);
        assert!(matches!(cli.command, Some(Command::Stop)) && !cli.daemon && !cli.no_stdout);
    }

    #[test]
    fn cluster_commands_are_read() {
        use crate::admin::ClusterCommand as Wanted;

        let wanted = |args: &[&str]| match parse(args).command {
            Some(Command::Cluster(args)) => args,
            other => panic!("{other:?}"),
        };
        let args = wanted(&["cluster", "status", "--server", "http://h:1", "--token=t"]);
        assert_eq!(args.command, Wanted::Status);
        assert_eq!(
            (args.server.as_deref(), args.token.as_deref()),
            (Some("http://h:1"), Some("t"))
        );
        let args = wanted(&["cluster", "--server=h:1", "move", "5", "1001", "1002"]);
        assert_eq!(args.command, Wanted::Move { slot: 5, from: 1001, to: 1002 });
        let args = wanted(&["cluster", "remove", "1002", "--no-wait"]);
        assert_eq!(args.command, Wanted::Remove { node: 1002, no_wait: true });
        let args = wanted(&["cluster", "keep", "1002", "--config", "wk.yaml"]);
        assert_eq!(args.command, Wanted::Keep { node: 1002 });
        let args = wanted(&["cluster", "replace", "1003", "10.0.0.7:11110"]);
        let addr = "10.0.0.7:11110".to_owned();
        assert_eq!(args.command, Wanted::Replace { node: 1003, addr });
        for bad in [
            &["cluster"][..],
            &["cluster", "move", "5", "1001"],
            &["cluster", "move", "x", "1001", "1002"],
            &["cluster", "move", "5", "0", "1002"],
            &["cluster", "remove", "1024"],
            &["cluster", "remove", "-1"],
            &["cluster", "replace", "1003"],
        ] {
            let args = std::iter::once("jindou").chain(bad.iter().copied());
            assert!(Cli::try_parse_from(args).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn bench_gets_its_arguments_untouched() {
        let cli = parse(&["bench", "send", "--help", "-n", "3", "--config=x"]);
        let Some(Command::Bench { args }) = cli.command else { panic!("{cli:?}") };
        assert_eq!(args, ["send", "--help", "-n", "3", "--config=x"]);
    }
}
