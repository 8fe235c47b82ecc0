//! The arguments of `jindou import`.

use clap::Args;

/// Copy users, channels, histories and conversations from a running v2.2.5.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "The source is only read, through its public and manager APIs; nothing of it changes.\n\
    The target takes an import from its own machine, or with its manager token. Interrupted, the\n\
    same command goes on where it was. Exit status 0: both sides hold the same.\n\n\
    Example:\n  \
    jindou import --from http://10.0.0.9:5001 --to http://127.0.0.1:5001"
)]
pub struct ImportArgs {
    /// HTTP API of the server to read, any node of it
    #[arg(long, value_name = "URL")]
    pub from: String,

    /// Its managerToken, when it has one; better in JINDOU_IMPORT_FROM_TOKEN
    #[arg(long, value_name = "TOKEN")]
    pub from_token: Option<String>,

    /// Its manager port, for the data pages; else they are read through --from
    #[arg(long, value_name = "URL", requires = "user")]
    pub manager: Option<String>,

    /// A user of its manager port
    #[arg(long, value_name = "NAME", requires = "manager")]
    pub user: Option<String>,

    /// That user's password; better in JINDOU_IMPORT_PASSWORD
    #[arg(long, value_name = "PASSWORD")]
    pub password: Option<String>,

    /// HTTP API of the server to fill, any node of it
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:5001")]
    pub to: String,

    /// Its managerToken; better in WK_MANAGERTOKEN, where other users of the machine don't see it
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,

    /// How long a side may be away before the import ends
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub patience: u64,
}
