//! The command line of the load generator.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Put load on a server and measure it.
#[derive(Debug, Parser)]
#[command(name = "jindou bench", bin_name = "jindou bench", version, args_override_self = true)]
pub(crate) struct Bench {
    /// What to do.
    #[command(subcommand)]
    pub(crate) workload: Workload,
}

/// The workloads.
#[derive(Debug, Subcommand)]
pub(crate) enum Workload {
    /// Messages between persons: connections in pairs, each sends to its peer
    Send(SendArgs),
    /// Messages to one group whose members are all online
    Fanout(FanoutArgs),
    /// Connections that say nothing
    Idle(IdleArgs),
    /// HTTP requests of a back end, one under way per connection
    Requests(RequestsArgs),
}

/// Options of every workload.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Where clients connect: tcp://HOST:PORT or ws://HOST:PORT[/PATH]; of several nodes, as
    /// tcp://HOST:PORT,HOST:PORT, each in turn
    #[arg(long, default_value = "tcp://127.0.0.1:5100", value_name = "URL")]
    pub(crate) target: Target,

    /// Speak JSON-RPC instead of binary frames (unencrypted)
    #[arg(long)]
    pub(crate) rpc: bool,

    /// Protocol version of binary connections
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=5), value_name = "N")]
    pub(crate) protocol: u8,

    /// HTTP API of the server, where a workload needs it
    #[arg(long, default_value = "http://127.0.0.1:5001", value_name = "URL")]
    pub(crate) http: String,

    /// Header `token` of HTTP requests
    #[arg(long, value_name = "TOKEN")]
    pub(crate) manager_token: Option<String>,

    /// Token of every CONNECT
    #[arg(long, default_value = "", value_name = "TOKEN")]
    pub(crate) token: String,

    /// Store that token for every user by HTTP first (servers that check tokens need it)
    #[arg(long)]
    pub(crate) register: bool,

    /// Wait so long for GET /health to answer 200 before anything else
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) wait: Option<Duration>,

    /// Seed of keys, payloads and arrival times
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,

    /// First part of every uid and channel id
    #[arg(long, default_value = "bench", value_name = "NAME")]
    pub(crate) prefix: String,

    /// Dials under way at a time
    #[arg(long, default_value_t = 64, value_parser = positive, value_name = "N")]
    pub(crate) dials: usize,

    /// Dials of one connection before the run is given up
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub(crate) tries: u32,

    /// Local addresses to dial from, in turn (needed above some 28,000 connections)
    #[arg(long, value_name = "IP")]
    pub(crate) source: Vec<IpAddr>,

    /// Every connection sends a PING so often
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
    pub(crate) ping: Duration,

    /// Check key and content of one RECV in so many, per connection; 0: of none
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) verify: u64,

    /// Threads of the generator, each with its share of the connections
    #[arg(long, default_value_t = 1, value_parser = positive, value_name = "N")]
    pub(crate) threads: usize,

    /// Processors the generator runs on, as 1 or 0,2-3
    #[arg(long, value_name = "CPUS")]
    pub(crate) pin: Option<Cpus>,

    /// Processes whose CPU time and memory are measured
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Vec<u32>,

    /// Write the result as JSON, too
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Options of workloads that send.
#[derive(Clone, Debug, Args)]
pub(crate) struct Load {
    /// Payload bytes
    #[arg(long, default_value_t = 128, value_parser = payload_size, value_name = "N")]
    pub(crate) size: usize,

    /// Open loop: so many messages a second in all, on schedule whatever the server does; latency
    /// counts from the scheduled moment
    #[arg(long, value_parser = rate, value_name = "N")]
    pub(crate) rate: Option<f64>,

    /// Gaps of the open loop's schedule
    #[arg(long, value_enum, default_value_t = Arrivals::Uniform, value_name = "KIND")]
    pub(crate) arrivals: Arrivals,

    /// Load before measuring
    #[arg(long, default_value = "3s", value_parser = duration, value_name = "TIME")]
    pub(crate) warmup: Duration,

    /// Measuring
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub(crate) duration: Duration,

    /// End measuring after so many sends, warm-up included, if that comes first
    #[arg(long, value_parser = positive, value_name = "N")]
    pub(crate) messages: Option<usize>,

    /// After the last send, wait so long for something still missing to arrive
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub(crate) drain: Duration,

    /// When a message stops counting as in flight (closed loop)
    #[arg(long, value_enum, value_name = "KIND")]
    pub(crate) until: Option<Until>,

    /// Duplicates and RECVs out of order are failures, too
    #[arg(long)]
    pub(crate) strict: bool,
}

/// Gaps of an open loop's schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrivals {
    /// All the same.
    Uniform,
    /// Exponentially distributed, as of independent senders.
    Poisson,
}

/// When a message stops counting as in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Until {
    /// When its SENDACK has come.
    Ack,
    /// When every receiver has it, too.
    Delivered,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SendArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) load: Load,

    /// Connections that send, in pairs (1: one that sends and one that receives)
    #[arg(short = 'n', long, default_value_t = 100, value_parser = positive, value_name = "N")]
    pub(crate) connections: usize,

    /// Messages in flight per connection (closed loop)
    #[arg(short = 'k', long, default_value_t = 10, value_parser = positive, value_name = "N")]
    pub(crate) in_flight: usize,

    /// Receivers are offline: each connection sends to a user who never connects
    #[arg(long)]
    pub(crate) offline: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct FanoutArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) load: Load,

    /// Members online besides the senders
    #[arg(short = 'g', long, default_value_t = 1000, value_parser = positive, value_name = "N")]
    pub(crate) members: usize,

    /// Members who send
    #[arg(long, default_value_t = 1, value_parser = positive, value_name = "N")]
    pub(crate) senders: usize,

    /// Messages in flight, all senders together (closed loop)
    #[arg(short = 'k', long, default_value_t = 1, value_parser = positive, value_name = "N")]
    pub(crate) in_flight: usize,

    /// Channel id; made from prefix and seed when left out
    #[arg(long, value_name = "ID")]
    pub(crate) channel: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct IdleArgs {
    #[command(flatten)]
    pub(crate) common: Common,

    /// Connections
    #[arg(short = 'n', long, default_value_t = 10_000, value_parser = positive, value_name = "N")]
    pub(crate) connections: usize,

    /// Keep them open so long
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "TIME")]
    pub(crate) hold: Duration,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RequestsArgs {
    #[command(flatten)]
    pub(crate) common: Common,

    /// What is asked
    #[arg(value_enum)]
    pub(crate) route: Route,

    /// Connections, each a thread of the generator
    #[arg(short = 'n', long, default_value_t = 16, value_parser = positive, value_name = "N")]
    pub(crate) connections: usize,

    /// Conversations of each user (sync)
    #[arg(long, default_value_t = 200, value_parser = positive, value_name = "N")]
    pub(crate) channels: usize,

    /// Payload bytes of messages
    #[arg(long, default_value_t = 128, value_parser = payload_size, value_name = "N")]
    pub(crate) size: usize,

    /// Load before measuring
    #[arg(long, default_value = "2s", value_parser = duration, value_name = "TIME")]
    pub(crate) warmup: Duration,

    /// Measuring
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub(crate) duration: Duration,
}

/// Which route of the HTTP API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Route {
    /// /conversation/sync, one recent message each
    Sync,
    /// /channel/messagesync, the last 50 of 60
    History,
    /// /message/send to a person
    Send,
}

impl Route {
    /// The path.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Sync => "/conversation/sync",
            Self::History => "/channel/messagesync",
            Self::Send => "/message/send",
        }
    }
}

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// WebSocket, or bare TCP.
    pub(crate) ws: bool,
    /// `HOST:PORT`, of every node; at least one.
    pub(crate) authorities: Vec<String>,
    /// Path of the WebSocket request.
    pub(crate) path: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        let ws = match scheme {
            "tcp" => false,
            "ws" => true,
            other => {
                return Err(format!("{other}:// is not spoken here; wanted tcp:// or ws://"));
            }
        };
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, format!("/{path}")),
            None => (rest, "/".to_owned()),
        };
        let authorities: Vec<String> = authority.split(',').map(str::to_owned).collect();
        for authority in &authorities {
            let (host, port) = authority.rsplit_once(':').ok_or("the port is missing")?;
            if host.is_empty() || port.parse::<u16>().is_err() {
                return Err("wanted HOST:PORT".to_owned());
            }
        }
        Ok(Target { ws, authorities, path })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let authorities = self.authorities.join(",");
        match self.ws {
            true => write!(f, "ws://{authorities}{}", self.path),
            false => write!(f, "tcp://{authorities}"),
        }
    }
}

/// A set of processors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cpus(pub(crate) Vec<usize>);

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Cpus, String> {
        let number = |text: &str| text.parse::<usize>().map_err(|_| "wanted 1 or 0,2-3".to_owned());
        let mut cpus = Vec::new();
        for part in text.split(',') {
            match part.split_once('-') {
                None => cpus.push(number(part)?),
                Some((first, last)) => cpus.extend(number(first)?..=number(last)?.min(4095)),
            }
        }
        if cpus.is_empty() { Err("no processor".to_owned()) } else { Ok(Cpus(cpus)) }
    }
}

/// Parses the arguments that follow `jindou bench`. Help and version leave the process.
pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Bench {
    Bench::parse_from(std::iter::once(OsString::from("jindou bench")).chain(args))
}

/// `500ms`, `10s`, `2m`, `1h`, or seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let cut = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(cut);
    let number: f64 = number.parse().map_err(|_| "wanted 500ms, 10s, 2m, 1h".to_owned())?;
    let unit = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("the unit is not ms, s, m or h".to_owned()),
    };
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}

fn positive(text: &str) -> Result<usize, String> {
    match text.replace('_', "").parse() {
        Ok(0) | Err(_) => Err("wanted a number from 1 on".to_owned()),
        Ok(n) => Ok(n),
    }
}

fn payload_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n <= 700_000 => Ok(n),
        Ok(_) | Err(_) => Err("wanted a number up to 700000, which fits a frame".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.replace('_', "").parse::<f64>() {
        Ok(n) if n > 0.0 && n <= 1e8 => Ok(n),
        Ok(_) | Err(_) => Err("wanted messages per second, above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Bench, clap::Error> {
        Bench::try_parse_from(std::iter::once("bench").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_sound() {
        Bench::command().debug_assert();
    }

    #[test]
    fn a_full_line_is_understood() {
        let line = "send --target ws://h:5200/x -n 1_000 -k 1 --size 256 --rate 5000 --arrivals poisson \
                    --warmup 500ms --duration 2m --pid 7 --pid 8 --pin 0,2-3 --seed 9 --json out.json";
        let Workload::Send(args) = parse(line).unwrap().workload else { panic!() };
        assert_eq!(
            args.common.target,
            Target { ws: true, authorities: vec!["h:5200".to_owned()], path: "/x".to_owned() }
        );
        assert_eq!((args.connections, args.in_flight, args.load.size), (1000, 1, 256));
        assert_eq!((args.load.rate, args.load.arrivals), (Some(5000.0), Arrivals::Poisson));
        assert_eq!(args.load.warmup, Duration::from_millis(500));
        assert_eq!(args.load.duration, Duration::from_secs(120));
        assert_eq!(args.common.pid, [7, 8]);
        assert_eq!(args.common.pin, Some(Cpus(vec![0, 2, 3])));
    }

    #[test]
    fn defaults_and_mistakes() {
        let Workload::Fanout(args) = parse("fanout").unwrap().workload else { panic!() };
        assert_eq!((args.members, args.senders, args.in_flight), (1000, 1, 1));
        assert_eq!(args.common.target.to_string(), "tcp://127.0.0.1:5100");
        let Workload::Idle(args) = parse("idle --target tcp://a:1,b:2").unwrap().workload else {
            panic!()
        };
        assert_eq!(args.common.target.authorities, ["a:1", "b:2"]);
        assert_eq!(args.common.target.to_string(), "tcp://a:1,b:2");
        for line in [
            "",
            "nothing",
            "send --target tcp://a:1,b",
            "send -n 0",
            "send --target http://h:1",
            "send --target tcp://h",
            "send --rate 0",
            "send --protocol 6",
            "send --duration soon",
            "send --size 1000000",
            "idle --pin x",
            "idle --hold 3x",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
