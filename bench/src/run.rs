//! From arguments to a report: sets a workload up, spreads it over threads, measures, gives a verdict.

use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::json;

use crate::args::{Common, FanoutArgs, IdleArgs, Load, SendArgs, Until};
use crate::chat::{Chat, Layout, Pace};
use crate::client::{Profile, Sink, Tally};
use crate::counts::Counts;
use crate::engine::{Dialled, Engine, nanos};
use crate::http::Api;
use crate::process::Usage;
use crate::report::{self, Idled, Measured, Report, Unit};
use crate::schedule::Schedule;
use crate::setup::{
    Shares, pace_words, prepare, profile, register, resolve, run_number, settings, speech, spread,
};

/// Uids in one request when a group is made.
const MEMBERS_AT_A_TIME: usize = 5_000;

/// Persons in pairs.
pub(crate) fn send(args: &SendArgs) -> anyhow::Result<Report> {
    let SendArgs { common, load, connections, in_flight, offline } = args;
    let n = *connections;
    anyhow::ensure!(
        *offline || n == 1 || n.is_multiple_of(2),
        "--connections must be even (pairs), or 1"
    );
    let share = Shares::new(n, if *offline || n == 1 { 1 } else { 2 }, common.threads)?;
    let prefix = &common.prefix;
    let layouts = share
        .parts()
        .map(|(first, count)| {
            let uid = |i: usize| format!("{prefix}-{i}");
            let peer = |i: usize| {
                if *offline { format!("{prefix}-{i}-off") } else { uid(i ^ 1) }
            };
            let online = if n == 1 && !*offline { 2 } else { count };
            Layout {
                uids: (first..first + online).map(uid).collect(),
                senders: count,
                channels: (first..first + count).map(peer).collect(),
                channel_type: 1,
                receivers: u32::from(!*offline),
            }
        })
        .collect();
    let title = format!(
        "send       {} connections{}, {}, {} B, {}",
        n,
        if *offline { " to offline users" } else { "" },
        pace_words(load, *in_flight, "each"),
        load.size,
        speech(common),
    );
    let settings = settings(
        common,
        load,
        json!({
            "workload": "send", "connections": n, "in_flight": in_flight, "offline": offline,
        }),
    );
    let until = load.until.unwrap_or(Until::Ack);
    let shares = share.parts().map(|(_, count)| vec![*in_flight; count]).collect();
    let measured = chat(common, load, layouts, shares, until)?;
    let unit = Unit { name: "send", count: measured.counts.window_acked };
    Ok(report::chat(title, settings, common, load, &unit, &measured))
}

/// One group.
pub(crate) fn fanout(args: &FanoutArgs) -> anyhow::Result<Report> {
    let FanoutArgs { common, load, members, senders, in_flight, channel } = args;
    anyhow::ensure!(common.threads == 1, "fanout runs on one thread: a group is one channel");
    let channel =
        channel.clone().unwrap_or_else(|| format!("{}-group-{}", common.prefix, common.seed));
    let uids: Vec<String> =
        (0..senders + members).map(|i| format!("{}-g{i}", common.prefix)).collect();
    prepare(common)?;
    make_group(common, &channel, &uids)?;
    let layout = Layout {
        channels: vec![channel; *senders],
        uids,
        senders: *senders,
        channel_type: 2,
        receivers: u32::try_from(senders + members - 1).context("too many members")?,
    };
    let title = format!(
        "fanout     {members} members online, {senders} senders, {}, {} B, {}",
        pace_words(load, *in_flight, "in all"),
        load.size,
        speech(common),
    );
    let settings = settings(
        common,
        load,
        json!({
            "workload": "fanout", "members": members, "senders": senders, "in_flight": in_flight,
        }),
    );
    let until = load.until.unwrap_or(Until::Delivered);
    let shares =
        (0..*senders).map(|i| in_flight / senders + usize::from(i < in_flight % senders)).collect();
    let measured = chat(common, load, vec![layout], vec![shares], until)?;
    let unit = Unit { name: "delivery", count: measured.counts.window_delivered };
    Ok(report::chat(title, settings, common, load, &unit, &measured))
}

fn make_group(common: &Common, channel: &str, uids: &[String]) -> anyhow::Result<()> {
    let api = Api::new(&common.http, common.manager_token.as_deref());
    for (place, part) in uids.chunks(MEMBERS_AT_A_TIME).enumerate() {
        let path = if place == 0 { "/channel" } else { "/channel/subscriber_add" };
        let body = json!({ "channel_id": channel, "channel_type": 2, "subscribers": part });
        api.post(path, &body).context("make the group")?;
    }
    Ok(())
}

/// Connections that say nothing.
pub(crate) fn idle(args: &IdleArgs) -> anyhow::Result<Report> {
    let IdleArgs { common, connections, hold } = args;
    prepare(common)?;
    let share = Shares::new(*connections, 1, common.threads)?;
    let uids: Vec<Vec<String>> = share
        .parts()
        .map(|(first, n)| (first..first + n).map(|i| format!("{}-i{i}", common.prefix)).collect())
        .collect();
    register(common, uids.iter().flatten())?;
    let profile = profile(common, 0, false)?;
    let clock = Instant::now();
    let before = Usage::read(&common.pid);
    let meet = Barrier::new(uids.len());
    let up = OnceLock::new();
    let parts = spread(&uids, |_, uids| -> anyhow::Result<(Dialled, usize, u64)> {
        let dialled = dial(common, &profile, clock, uids);
        meet.wait();
        let (mut engine, dialled) = dialled?;
        up.get_or_init(|| Usage::read(&common.pid));
        let end = Instant::now() + *hold;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            step(&mut engine, left)?;
        }
        let pongs = engine.tally().pongs;
        let want = u64::try_from(engine.live()).unwrap_or(u64::MAX);
        engine.ping_all();
        engine.flush();
        let end = Instant::now() + Duration::from_secs(5);
        while engine.tally().pongs < pongs + want {
            let Some(left) = end.checked_duration_since(Instant::now()) else {
                break;
            };
            step(&mut engine, left)?;
        }
        Ok((dialled, engine.live(), (engine.tally().pongs - pongs).min(want)))
    })?;
    let dialled: Vec<Dialled> = parts.iter().map(|part| part.0.clone()).collect();
    let idled = Idled {
        dialled: report::join_dialled(&dialled)?,
        connections: *connections,
        alive: parts.iter().map(|part| part.1).sum(),
        ponged: parts.iter().map(|part| part.2).sum(),
        held: *hold,
        usage: [before, up.get().cloned().unwrap_or_default(), Usage::read(&common.pid)],
    };
    let title = format!(
        "idle       {connections} connections, {} dials at a time, {}",
        common.dials,
        speech(common)
    );
    let settings = json!({
        "workload": "idle",
        "target": common.target.to_string(),
        "connections": connections,
        "dials": common.dials,
    });
    Ok(report::idle(title, settings, common, &idled))
}

/// The clients of one thread, connected.
fn dial<'a>(
    common: &Common,
    profile: &'a Profile,
    clock: Instant,
    uids: &[String],
) -> anyhow::Result<(Engine<'a>, Dialled)> {
    let peers = resolve(common)?;
    let mut engine = Engine::new(profile, peers, common.source.clone(), clock, common.ping)?;
    let dialled = engine.dial(uids, common.dials.div_ceil(common.threads), common.tries)?;
    Ok((engine, dialled))
}

/// One turn of clients that only stay.
fn step(engine: &mut Engine<'_>, left: Duration) -> anyhow::Result<()> {
    engine.turn(Some(left.min(Duration::from_millis(100))), &mut Quiet)?;
    engine.flush();
    let gone = engine.take_gone();
    engine.drop_gone(&gone);
    Ok(())
}

struct Quiet;

impl Sink for Quiet {
    fn live(&mut self, _: usize) {}

    fn answer(&mut self, _: usize, _: u32, _: u8) {}

    fn recv(&mut self, _: usize, _: &str, _: u32) {}
}

/// Runs layouts, one per thread, and puts together what they have measured.
fn chat(
    common: &Common,
    load: &Load,
    layouts: Vec<Layout>,
    in_flight: Vec<Vec<usize>>,
    until: Until,
) -> anyhow::Result<Measured> {
    prepare(common)?;
    register(common, layouts.iter().flat_map(|layout| &layout.uids))?;
    let profile = profile(common, load.size, true)?;
    let clock = Instant::now();
    let threads = layouts.len();
    let meet = Barrier::new(threads);
    let start = OnceLock::new();
    let run = run_number(common.seed);
    let work: Vec<(Layout, Vec<usize>)> = layouts.into_iter().zip(in_flight).collect();
    let parts = spread(&work, |thread, (layout, in_flight)| {
        let dialled = dial(common, &profile, clock, &layout.uids);
        meet.wait();
        let (mut engine, dialled) = dialled?;
        let start: u64 = *start.get_or_init(|| engine.now() + 1_000_000);
        let begin = start + nanos(load.warmup);
        let end = begin + nanos(load.duration);
        let pace = match load.rate {
            None => Pace::Closed { in_flight: in_flight.clone(), until },
            Some(rate) => {
                let seed = common.seed.wrapping_add(u64::try_from(thread).unwrap_or(0));
                let rate = rate / threads as f64;
                Pace::Open(Schedule::new(start, end, rate, load.arrivals, seed))
            }
        };
        let run = run.wrapping_add(u64::try_from(thread).unwrap_or(0));
        let most =
            load.messages.map_or(u64::MAX, |n| u64::try_from(n.div_ceil(threads)).unwrap_or(0));
        let mut chat = Chat::new(layout.clone(), pace, run, (begin, end), most)?;
        let pids: Option<&[u32]> = (thread == 0).then_some(&common.pid);
        let usage = drive(&mut engine, &mut chat, &profile, (begin, end), nanos(load.drain), pids)?;
        Ok((dialled, engine.tally(), chat.finish(), usage))
    })?;
    let mut counts = Counts::new()?;
    let mut tally = Tally::default();
    let mut dialled = Vec::new();
    let mut usage = None;
    for part in parts {
        counts.merge(&part.2)?;
        tally.verified += part.1.verified;
        tally.wrong += part.1.wrong;
        tally.pongs += part.1.pongs;
        dialled.push(part.0);
        usage = usage.or(part.3);
    }
    let (elapsed, before, after) = usage.context("nothing was measured")?;
    Ok(Measured { counts, tally, dialled: report::join_dialled(&dialled)?, elapsed, before, after })
}

/// The loop of one thread: until the window has ended and nothing is missing, or nothing comes any more.
fn drive(
    engine: &mut Engine<'_>,
    chat: &mut Chat,
    profile: &Profile,
    (begin, planned_end): (u64, u64),
    drain: u64,
    pids: Option<&[u32]>,
) -> anyhow::Result<Option<(Duration, Usage, Usage)>> {
    let mut before = None;
    let mut after = None;
    let mut looked = 0;
    loop {
        let now = engine.now();
        let end = planned_end.min(chat.ended.unwrap_or(u64::MAX));
        if now >= begin && before.is_none() {
            before = Some((Instant::now(), pids.map(Usage::read)));
            chat.measuring = true;
        }
        if let Some((since, _)) = before.as_ref().filter(|_| now >= end && after.is_none()) {
            after = Some((since.elapsed(), pids.map(Usage::read)));
            chat.measuring = false;
        }
        if now >= end && now >= looked + 5_000_000 {
            looked = now;
            // An open loop that is behind still owes what was due before the end.
            let owed = chat.next_due().is_some();
            if !owed && chat.pending() == 0 {
                break;
            }
            if now >= end.max(chat.progress) + drain || now >= end + 6 * drain {
                break;
            }
        }
        let owes = now < end || chat.next_due().is_some();
        if owes {
            chat.pump(engine, profile, now);
        }
        engine.flush();
        let next = match chat.next_due() {
            Some(due) => due.saturating_sub(now),
            None if now < begin => begin - now,
            None if now < end => end - now,
            None => 5_000_000,
        };
        let wait = Duration::from_nanos(next.min(100_000_000));
        engine.turn(Some(wait), chat)?;
        let gone = engine.take_gone();
        if !gone.is_empty() {
            chat.lose(&gone);
            engine.drop_gone(&gone);
        }
    }
    engine.flush();
    Ok(match (before, after) {
        (Some((_, Some(before))), Some((elapsed, Some(after)))) => Some((elapsed, before, after)),
        _ => None,
    })
}
