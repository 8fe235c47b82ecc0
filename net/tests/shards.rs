//! Shards among each other and with other threads: rings, wake-ups, timers, the drain.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod common;

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{IDLE, Nobody, Plan, check_echo, drivers, echo, is_closed, read, wait_until, write};
use jindou_core::{
    effect::{Effect, Event, Inbox, Now, Outbox, Stepped},
    envelope::Envelope,
    id::{ConnId, NodeId, SessionAddr, ShardId},
    request::{Reply, Request, Target},
};
use jindou_net::{Driver, Handle, Machine, NetSettings, ShardContext, ShardsSettings, start};

fn envelope(number: u64) -> Envelope {
    Envelope::Left {
        session: SessionAddr { node: NodeId(1), conn: ConnId(number) },
        uid: "".into(),
    }
}

fn number(event: &Event) -> Option<u64> {
    match event {
        Event::Envelope(Envelope::Left { session, .. }) => Some(session.conn.0),
        _ => None,
    }
}

/// Every shard sends `COUNT` numbered envelopes to every other one, far faster than the rings of 8
/// cells carry them, and checks that each source's numbers come in order and complete.
struct Flood {
    shard: u16,
    shard_count: u16,
    sent: u64,
    got: Vec<u64>,
    done: Arc<AtomicUsize>,
}

const COUNT: u64 = 20_000;

impl Flood {
    fn step(&mut self, inbox: &mut Inbox, outbox: &mut Outbox) -> Stepped {
        for event in inbox.events.drain(..) {
            if let Some(number) = number(&event) {
                let source = usize::try_from(number / COUNT).unwrap();
                assert_eq!(number % COUNT, self.got[source]);
                self.got[source] += 1;
                if self.got.iter().sum::<u64>() == COUNT * u64::from(self.shard_count - 1) {
                    self.done.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
        for _ in 0..100 {
            if self.sent == COUNT {
                break;
            }
            let number = u64::from(self.shard) * COUNT + self.sent;
            for to in (0..self.shard_count).filter(|&to| to != self.shard) {
                let envelope = envelope(number);
                outbox.effects.push(Effect::Send { to: ShardId(to), envelope });
            }
            self.sent += 1;
        }
        Stepped { more: self.sent < COUNT, wake_at_ms: None }
    }
}

#[test]
fn full_rings_between_three_shards_lose_nothing() {
    for driver in drivers() {
        let done = Arc::new(AtomicUsize::new(0));
        let mut plan = Plan::new(driver, 3);
        plan.net.mesh.cell_count = 8;
        plan.net.mesh.backlog_count_max = 100;
        plan.net.mesh.take_count_max = 5;
        let counted = Arc::clone(&done);
        let node = plan.start(move |handle: &Handle| {
            let mut flood = Flood {
                shard: handle.shard().0,
                shard_count: 3,
                sent: 0,
                got: vec![0; 3],
                done: counted,
            };
            handle.push(Event::Drain);
            move |_: Now, inbox: &mut Inbox, outbox: &mut Outbox| flood.step(inbox, outbox)
        });
        wait_until(|| done.load(Ordering::SeqCst) == 3, || "the rings are stuck".to_owned());
        assert!(node.sum(|counters| counters.ring_full.get()) > 0);
        node.wait_for(COUNT * 6, |counters| counters.envelopes_in.get());
        // Reading from clients had to stop meanwhile; now it goes on.
        let mut stream = node.connect();
        stream.write_all(b"x").unwrap();
        node.wait_for(1, |counters| counters.bytes_in.get());
    }
}

/// Two shards play a token back and forth, both parked in between; a client watches.
#[test]
fn a_token_between_parked_shards_is_never_lost() {
    for driver in drivers() {
        let rounds = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&rounds);
        let node = Plan::new(driver, 2).start(move |handle: &Handle| {
            let other = common::next(handle.shard(), 2);
            if handle.shard().0 == 0 {
                handle.push(Event::Envelope(envelope(0)));
            }
            move |_: Now, inbox: &mut Inbox, outbox: &mut Outbox| {
                for event in inbox.events.drain(..) {
                    if let Some(number) = number(&event).filter(|&number| number < 20_000) {
                        count.store(number, Ordering::SeqCst);
                        let envelope = envelope(number + 1);
                        outbox.effects.push(Effect::Send { to: other, envelope });
                    }
                }
                IDLE
            }
        });
        wait_until(
            || rounds.load(Ordering::SeqCst) == 19_999,
            || format!("stuck at {}", rounds.load(Ordering::SeqCst)),
        );
        assert!(node.sum(|counters| counters.wakeups.get()) > 0);
    }
}

/// Threads fill a queue and wake the shard, at random moments in which it is about to park.
#[test]
fn a_wake_up_is_never_lost() {
    const THREADS: u64 = 3;
    const ITEMS: u64 = 20_000;
    for driver in drivers() {
        let (sender, receiver) = flume::unbounded::<u64>();
        let (wakers, woken) = flume::unbounded();
        let seen = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&seen);
        let node = Plan::new(driver, 1).start(move |handle: &Handle| {
            wakers.send(handle.waker()).unwrap();
            handle.add_source(move |_| {
                let taken = receiver.try_iter().take(50).count() as u64;
                count.fetch_add(taken, Ordering::SeqCst);
                taken == 50
            });
            echo
        });
        let waker = woken.recv().unwrap();
        let threads: Vec<_> = (0..THREADS)
            .map(|n| {
                let (sender, waker, seen) = (sender.clone(), waker.clone(), Arc::clone(&seen));
                std::thread::spawn(move || {
                    for item in 0..ITEMS {
                        sender.send(item).unwrap();
                        waker.wake();
                        if item % 16 == n {
                            // Let the shard go to sleep now and then.
                            let before = seen.load(Ordering::SeqCst);
                            while seen.load(Ordering::SeqCst) == before && !sender.is_empty() {
                                std::thread::yield_now();
                            }
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        wait_until(
            || seen.load(Ordering::SeqCst) == THREADS * ITEMS,
            || format!("{} of {} seen", seen.load(Ordering::SeqCst), THREADS * ITEMS),
        );
        assert!(node.sum(|counters| counters.wakeups.get()) > 0);
    }
}

/// A machine that always has more to do must starve neither sockets nor timers nor other threads.
#[test]
fn endless_work_starves_nobody() {
    for driver in drivers() {
        let (sender, receiver) = flume::unbounded::<u8>();
        let (wakers, woken) = flume::unbounded();
        let seen = Arc::new(AtomicU64::new(0));
        let ticks = Arc::new(AtomicU64::new(0));
        let (count, tick_count) = (Arc::clone(&seen), Arc::clone(&ticks));
        let node = Plan::new(driver, 1).start(move |handle: &Handle| {
            wakers.send(handle.waker()).unwrap();
            handle.add_source(move |_| {
                count.fetch_add(receiver.try_iter().count() as u64, Ordering::SeqCst);
                false
            });
            monoio::spawn(async move {
                loop {
                    monoio::time::sleep(Duration::from_millis(1)).await;
                    tick_count.fetch_add(1, Ordering::SeqCst);
                }
            });
            |now: Now, inbox: &mut Inbox, outbox: &mut Outbox| {
                echo(now, inbox, outbox);
                Stepped { more: true, wake_at_ms: None }
            }
        });
        let waker = woken.recv().unwrap();
        let mut stream = node.connect();
        for n in 1..=200 {
            check_echo(&mut stream, b"in between");
            sender.send(0).unwrap();
            waker.wake();
            wait_until(|| seen.load(Ordering::SeqCst) == n, || "the source starves".to_owned());
        }
        wait_until(
            || ticks.load(Ordering::SeqCst) > 20,
            || {
                format!(
                    "timers starve on {driver}: {} {}",
                    ticks.load(Ordering::SeqCst),
                    node.sum(|c| c.turns.get())
                )
            },
        );
        // A drain cannot wait for such a machine to finish, only for its time to be over.
        let shards = node.shards.as_ref().unwrap();
        assert!(shards.counters()[0].turns.get() > 100);
        drop(stream);
        stop_now(node);
    }
}

/// Ends a node whose machine never rests, without waiting for the drain's whole time.
fn stop_now(mut node: common::Node) {
    let shards = node.shards.take().unwrap();
    shards.stop().drain();
    // The threads go on until the drain's time is over; the process may end before.
    drop(shards);
}

#[test]
fn a_step_comes_when_the_machine_wants_one() {
    for driver in drivers() {
        let node = Plan::new(driver, 1).start(|_| {
            let mut waiting = Vec::new();
            move |now: Now, inbox: &mut Inbox, outbox: &mut Outbox| {
                for event in inbox.events.drain(..) {
                    if let Event::Bytes { conn, range } = event {
                        let delay = u64::from(inbox.bytes[range.start]);
                        waiting.push((now.mono_ms + delay, conn));
                    }
                }
                waiting.retain(|&(at, conn)| {
                    if at <= now.mono_ms {
                        write(outbox, conn, b"!");
                    }
                    at > now.mono_ms
                });
                let wake_at_ms = waiting.iter().map(|&(at, _)| at).min();
                Stepped { more: false, wake_at_ms }
            }
        });
        let mut streams: Vec<_> = (0..3).map(|_| node.connect()).collect();
        let begin = Instant::now();
        // Later, sooner, in between: the timer must follow.
        for (stream, delay) in streams.iter_mut().zip([200_u8, 40, 120]) {
            stream.write_all(&[delay]).unwrap();
        }
        for (place, delay) in [(1, 40), (2, 120), (0, 200)] {
            read(&mut streams[place], 1);
            let after = u64::try_from(begin.elapsed().as_millis()).unwrap();
            assert!((delay - 1..delay + 500).contains(&after), "{delay} ms took {after} ms");
        }
    }
}

#[test]
fn a_request_gets_its_own_reply() {
    for driver in drivers() {
        let right = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&right);
        let _node = Plan::new(driver, 1).start(move |handle: &Handle| {
            for n in 0..100_u64 {
                let (handle, count) = (handle.clone(), Arc::clone(&count));
                monoio::spawn(async move {
                    let to = Target::Shard(ShardId(u16::try_from(n).unwrap()));
                    let asked = handle.request(to, Request::Vars);
                    // A caller that goes away must not hurt.
                    drop(handle.request(Target::Shard(ShardId(7)), Request::Vars));
                    if matches!(asked.await, Reply::LastSeq(seq) if seq == n) {
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            |_: Now, inbox: &mut Inbox, outbox: &mut Outbox| {
                for event in inbox.events.drain(..) {
                    if let Event::Request { token, to: Target::Shard(shard), .. } = event {
                        let reply = Reply::LastSeq(u64::from(shard.0));
                        outbox.effects.push(Effect::Reply { token, reply });
                    }
                }
                IDLE
            }
        });
        wait_until(|| right.load(Ordering::SeqCst) == 100, || "replies are missing".to_owned());
    }
}

#[test]
fn an_envelope_to_the_own_shard_arrives() {
    for driver in drivers() {
        let seen = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&seen);
        let _node = Plan::new(driver, 1).start(move |handle: &Handle| {
            handle.push(Event::Envelope(envelope(0)));
            move |_: Now, inbox: &mut Inbox, outbox: &mut Outbox| {
                for event in inbox.events.drain(..) {
                    if let Some(number) = number(&event).filter(|&number| number < 1000) {
                        count.store(number, Ordering::SeqCst);
                        let envelope = envelope(number + 1);
                        outbox.effects.push(Effect::Send { to: ShardId(0), envelope });
                    }
                }
                IDLE
            }
        });
        wait_until(|| seen.load(Ordering::SeqCst) == 999, || "it did not".to_owned());
    }
}

#[test]
fn a_drain_flushes_closes_and_ends() {
    for driver in drivers() {
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        let mut node = Plan::new(driver, 2).start(move |_: &Handle| {
            let mut conns = Vec::new();
            move |_: Now, inbox: &mut Inbox, outbox: &mut Outbox| {
                for event in inbox.events.drain(..) {
                    match event {
                        Event::Opened { conn, .. } => {
                            write(outbox, conn, b"hi");
                            conns.push(conn);
                        }
                        Event::Drain => {
                            count.fetch_add(1, Ordering::SeqCst);
                            for &conn in &conns {
                                write(outbox, conn, &vec![b'd'; 500_000]);
                            }
                        }
                        _ => {}
                    }
                }
                IDLE
            }
        });
        let mut streams: Vec<_> = (0..20).map(|_| node.connect()).collect();
        for stream in &mut streams {
            read(stream, 2);
        }
        let shards = node.shards.take().unwrap();
        let begin = Instant::now();
        shards.stop().drain();
        for stream in &mut streams {
            assert!(read(stream, 500_000).iter().all(|&byte| byte == b'd'));
        }
        for stream in &mut streams {
            assert!(is_closed(stream));
        }
        shards.wait().unwrap();
        assert_eq!(told.load(Ordering::SeqCst), 2);
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        assert!(std::net::TcpStream::connect(node.address).is_err(), "still accepting");
    }
}

#[test]
fn a_drain_waits_for_callers_of_the_api_and_no_longer_than_its_time() {
    for driver in drivers() {
        let mut plan = Plan::new(driver, 1);
        plan.net.drain_ms = 400;
        let mut node = plan.start(|handle: &Handle| {
            // Nobody ever answers this one.
            let asked = handle.request(Target::Shard(ShardId(0)), Request::Vars);
            monoio::spawn(asked);
            |_: Now, inbox: &mut Inbox, _: &mut Outbox| {
                inbox.events.clear();
                IDLE
            }
        });
        let shards = node.shards.take().unwrap();
        let begin = Instant::now();
        shards.stop().drain();
        shards.wait().unwrap();
        let after = begin.elapsed();
        assert!((390..3000).contains(&after.as_millis()), "{after:?}");
    }
}

/// A machine that never rests for as long as a drain wants it to, or always.
struct Restless {
    begin: Instant,
    /// `None`: it has nothing to do, ever.
    last: std::cell::Cell<Option<u128>>,
}

impl Machine for Restless {
    fn step(&mut self, _: Now, inbox: &mut Inbox, _: &mut Outbox) -> Stepped {
        inbox.events.clear();
        IDLE
    }

    fn is_idle(&self) -> bool {
        let now = self.begin.elapsed().as_millis() / 50;
        self.last.get().is_none_or(|last| {
            self.last.set(Some(now));
            last == now
        })
    }
}

/// A shard that is left alone by the others waits for their answers, and nobody gives them.
#[test]
fn shards_end_a_drain_together() {
    for driver in drivers() {
        let mut node = Plan::new(driver, 2).start(|handle: &Handle| {
            let last = (handle.shard() == ShardId(1)).then_some(0);
            Restless { begin: Instant::now(), last: std::cell::Cell::new(last) }
        });
        let shards = node.shards.take().unwrap();
        let begin = Instant::now();
        shards.stop().drain();
        shards.wait().unwrap();
        assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    }
}

#[test]
fn a_panic_in_a_shard_is_reported() {
    for driver in drivers() {
        let settings = ShardsSettings {
            shard_count: 2,
            cpus: Vec::new(),
            driver,
            net: NetSettings::default(),
        };
        let shards = start(&settings, async |context: ShardContext| {
            let shard = context.shard.0;
            let handle = context.handle.clone();
            let machine = move |_: Now, _: &mut Inbox, _: &mut Outbox| -> Stepped {
                assert_eq!(shard, 0, "an invariant is broken");
                IDLE
            };
            handle.push(Event::Drain);
            let _ = Driver::new(context, machine, Nobody).unwrap().run().await;
        })
        .unwrap();
        let stop = shards.stop();
        let error = shards.wait().unwrap_err();
        assert!(error.to_string().contains("an invariant is broken"), "{error}");
        stop.drain();
    }
}
