//! The arguments of `jindou cluster`.

use clap::{Args, Subcommand};

/// Look at a running cluster, and change it.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Any node of the cluster may be asked. It answers with what it can find out:\n\
    nodes that do not answer it in time are shown as offline.\n\n\
    Changes need the manager token (managerToken, WK_MANAGERTOKEN). Where none is set, they are\n\
    taken from the node's own machine only.\n\n\
    Examples:\n  \
    jindou cluster status\n  \
    jindou cluster status --server http://10.0.0.2:5001 --token SECRET\n  \
    jindou cluster move 17 1001 1004        slot 17: node 1004 takes the place of 1001\n  \
    jindou cluster remove 1002              drain node 1002, wait until it is gone\n  \
    jindou cluster replace 1003 10.0.0.7:11110"
)]
pub struct ClusterArgs {
    /// HTTP API of any node [default: from httpAddr of the settings, on this machine]
    #[arg(long, value_name = "URL", global = true)]
    pub server: Option<String>,

    /// Manager token; better in WK_MANAGERTOKEN, where other users of the machine don't see it
    #[arg(long, value_name = "TOKEN", global = true)]
    pub token: Option<String>,

    /// What to do
    #[command(subcommand)]
    pub command: ClusterCommand,
}

/// What to do with the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum ClusterCommand {
    /// Show nodes and slots; exit status 1 when a slot has no leader
    Status,
    /// Give a slot from one node to another
    ///
    /// Where both hold a copy and FROM leads, TO takes the lead. Else TO gets a copy, and when it
    /// has caught up FROM gives its own away.
    Move {
        /// The slot
        slot: u16,
        /// The node that gives
        #[arg(value_parser = clap::value_parser!(u16).range(1..=1023))]
        from: u16,
        /// The node that takes
        #[arg(value_parser = clap::value_parser!(u16).range(1..=1023))]
        to: u16,
    },
    /// Take a node out of the cluster: the others take over what it holds
    ///
    /// Waits until it is gone. When interrupted the removal goes on; `keep` takes it back.
    Remove {
        /// The node
        #[arg(value_parser = clap::value_parser!(u16).range(1..=1023))]
        node: u16,
        /// Only start it
        #[arg(long)]
        no_wait: bool,
    },
    /// Take back the removal of a node that is not gone yet
    Keep {
        /// The node
        #[arg(value_parser = clap::value_parser!(u16).range(1..=1023))]
        node: u16,
    },
    /// Give a node another address: it has moved, or an empty machine replaces a dead one
    Replace {
        /// The node
        #[arg(value_parser = clap::value_parser!(u16).range(1..=1023))]
        node: u16,
        /// Where the other nodes reach it from now on
        #[arg(value_name = "HOST:PORT")]
        addr: String,
    },
}
