//! What a run needs before its first connection: processors, file descriptors, users, keys, payload.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::Context;
use jindou_core::wire::crypto::ClientKey;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use serde_json::{Value, json};

use crate::args::{Common, Load};
use crate::client::Profile;
use crate::http::Api;

/// Key pairs of a run.
const KEYS: usize = 16;

/// Pins the process, raises its file limit, waits for the server.
pub(crate) fn prepare(common: &Common) -> anyhow::Result<()> {
    if let Some(cpus) = &common.pin {
        let mut set = CpuSet::new();
        for cpu in &cpus.0 {
            set.set(*cpu).with_context(|| format!("processor {cpu}"))?;
        }
        sched_setaffinity(Pid::from_raw(0), &set).context("--pin")?;
    }
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("file limit")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("file limit")?;
    if let Some(wait) = common.wait {
        Api::new(&common.http, common.manager_token.as_deref()).wait(wait)?;
    }
    Ok(())
}

/// Stores the token of every user, if asked to.
pub(crate) fn register<'a>(
    common: &Common,
    uids: impl Iterator<Item = &'a String>,
) -> anyhow::Result<()> {
    if !common.register {
        return Ok(());
    }
    let api = Api::new(&common.http, common.manager_token.as_deref());
    for uid in uids {
        let body = json!({
            "uid": uid, "token": common.token, "device_flag": 0, "device_level": 0,
        });
        api.post("/user/token", &body).context("--register")?;
    }
    Ok(())
}

/// What all clients share. `agrees`: they will send or check, so they need ciphers.
pub(crate) fn profile(common: &Common, size: usize, agrees: bool) -> anyhow::Result<Profile> {
    let mut dice = ChaCha8Rng::seed_from_u64(common.seed);
    let mut keys = Vec::with_capacity(KEYS);
    for _ in 0..KEYS {
        let mut seed = [0; 32];
        dice.fill_bytes(&mut seed);
        keys.push(ClientKey::from_seed(seed));
    }
    Ok(Profile {
        ws: common.target.ws,
        rpc: common.rpc,
        protocol: common.protocol,
        host: common.target.authorities.first().cloned().unwrap_or_default(),
        path: common.target.path.clone(),
        token: common.token.clone(),
        keys,
        payload: payload(size, &mut dice),
        verify: common.verify,
        agrees,
    })
}

/// A text message of that size, as SDKs send them; random letters where it is too short for one.
fn payload(size: usize, dice: &mut ChaCha8Rng) -> Vec<u8> {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz      ";
    const FRONT: &[u8] = b"{\"type\":1,\"content\":\"";
    const BACK: &[u8] = b"\"}";
    let framed = size >= FRONT.len() + BACK.len();
    let letters = if framed { size - FRONT.len() - BACK.len() } else { size };
    let mut payload = if framed { FRONT.to_vec() } else { Vec::new() };
    for _ in 0..letters {
        let place = usize::try_from(dice.next_u32() % 32).unwrap_or(0);
        payload.push(LETTERS.get(place).copied().unwrap_or(b' '));
    }
    if framed {
        payload.extend_from_slice(BACK);
    }
    payload
}

/// An address of every node.
pub(crate) fn resolve(common: &Common) -> anyhow::Result<Vec<SocketAddr>> {
    let one = |authority: &String| {
        let list = authority.to_socket_addrs().with_context(|| format!("resolve {authority}"));
        list?.next().with_context(|| format!("{authority} has no address"))
    };
    common.target.authorities.iter().map(one).collect()
}

/// A number that no other run has: a server that knows repeated messages must not know ours.
pub(crate) fn run_number(seed: u64) -> u64 {
    let clock = u64::try_from(crate::unix_ms()).unwrap_or(0);
    let process = u64::from(std::process::id());
    ChaCha8Rng::seed_from_u64(seed ^ (clock << 20) ^ process).next_u64()
}

/// How connections are shared out: whole groups of `unit`, as even as can be.
pub(crate) struct Shares(Vec<(usize, usize)>);

impl Shares {
    pub(crate) fn new(connections: usize, unit: usize, threads: usize) -> anyhow::Result<Shares> {
        let units = connections / unit;
        anyhow::ensure!(units >= threads, "fewer connections than --threads");
        let mut first = 0;
        let parts = (0..threads).map(|i| {
            let count = (units / threads + usize::from(i < units % threads)) * unit;
            let part = (first, count);
            first += count;
            part
        });
        Ok(Shares(parts.collect()))
    }

    /// First connection and number of connections of each thread.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.0.iter().copied()
    }
}

/// Runs `work` on one thread per item; a single item on this thread.
pub(crate) fn spread<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(usize, &T) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    if let [item] = items {
        return Ok(vec![work(0, item)?]);
    }
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = items
            .iter()
            .enumerate()
            .map(|(place, item)| scope.spawn(move || work(place, item)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
            .collect()
    })
}

pub(crate) fn speech(common: &Common) -> String {
    let wire =
        if common.rpc { "JSON-RPC".to_owned() } else { format!("protocol {}", common.protocol) };
    format!("{wire} on {}", common.target)
}

pub(crate) fn pace_words(load: &Load, in_flight: usize, whose: &str) -> String {
    match load.rate {
        None => format!("{in_flight} in flight {whose}"),
        Some(rate) => format!("{rate} a second on schedule"),
    }
}

/// The settings of a run, for the JSON report.
pub(crate) fn settings(common: &Common, load: &Load, own: Value) -> Value {
    let mut all = json!({
        "target": common.target.to_string(),
        "rpc": common.rpc,
        "protocol": common.protocol,
        "size": load.size,
        "rate": load.rate,
        "messages": load.messages,
        "warmup_s": load.warmup.as_secs_f64(),
        "duration_s": load.duration.as_secs_f64(),
        "threads": common.threads,
        "seed": common.seed,
    });
    if let (Some(all), Value::Object(own)) = (all.as_object_mut(), own) {
        all.extend(own);
    }
    all
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn pairs_stay_together_and_nobody_is_left_out() {
        let parts = |n, unit, threads| -> Vec<(usize, usize)> {
            Shares::new(n, unit, threads).unwrap().parts().collect()
        };
        assert_eq!(parts(10, 2, 3), [(0, 4), (4, 4), (8, 2)]);
        assert_eq!(parts(1, 1, 1), [(0, 1)]);
        assert!(Shares::new(2, 2, 2).is_err());
    }

    #[test]
    fn payloads_have_their_size() {
        for size in [0, 5, 22, 23, 128, 5000] {
            assert_eq!(payload(size, &mut ChaCha8Rng::seed_from_u64(1)).len(), size);
        }
        let text = payload(128, &mut ChaCha8Rng::seed_from_u64(1));
        assert!(serde_json::from_slice::<Value>(&text).is_ok());
    }

    #[test]
    fn work_is_spread_and_errors_come_back() {
        let double = |_: usize, n: &u32| Ok(n * 2);
        assert_eq!(spread(&[1, 2, 3], double).unwrap(), [2, 4, 6]);
        let refuse = |_: usize, n: &u32| -> anyhow::Result<u32> {
            anyhow::ensure!(*n == 1, "not one");
            Ok(*n)
        };
        assert!(spread(&[1, 2], refuse).is_err());
    }
}
