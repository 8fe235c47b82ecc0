//! One pinned thread per shard, each with a runtime of its own.

use std::{
    any::Any,
    future::Future,
    io,
    sync::{Arc, mpsc},
    thread,
    time::Instant,
};

use jindou_core::id::ShardId;

use crate::{
    counters::Counters,
    handle::Handle,
    mesh::{self, Mesh},
    pin,
    probe::DriverKind,
    rt,
    settings::NetSettings,
    stop::Stop,
    wake::ShardWaker,
};

/// How many shards, where, and on which driver.
#[derive(Clone, Debug)]
pub struct ShardsSettings {
    /// Shards: at least 1, at most 1024.
    pub shard_count: u16,
    /// The CPUs to pin them to, in turn ([`pin::allowed_cpus`]); empty: they are not pinned.
    pub cpus: Vec<usize>,
    /// From [`crate::probe::probe`].
    pub driver: DriverKind,
    /// Bounds and times.
    pub net: NetSettings,
}

/// What a shard's thread starts with.
#[derive(Debug)]
pub struct ShardContext {
    /// The shard.
    pub shard: ShardId,
    /// How many there are.
    pub shard_count: u16,
    /// The CPU that its thread is pinned to.
    pub cpu: Option<usize>,
    /// The driver of its runtime.
    pub driver: DriverKind,
    /// For everything that runs on its thread.
    pub handle: Handle,
    /// Stops the node.
    pub stop: Stop,
    /// Its ends of the rings.
    pub(crate) mesh: Mesh,
}

/// Why the shards ended other than by a drain.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// A shard's thread could not start.
    #[error("shard {shard} cannot start: {source}")]
    Start {
        /// Which.
        shard: u16,
        /// Why.
        source: io::Error,
    },
    /// A shard's thread panicked. Its state is lost, so the process must end.
    #[error("shard {shard} failed: {text}")]
    Panicked {
        /// Which.
        shard: u16,
        /// What the panic said.
        text: String,
    },
}

/// The shards of a node, running.
#[derive(Debug)]
pub struct Shards {
    threads: Vec<thread::JoinHandle<()>>,
    ends: mpsc::Receiver<(u16, Result<(), ShardError>)>,
    stop: Stop,
    wakers: Arc<[ShardWaker]>,
    counters: Vec<Arc<Counters>>,
}

/// Starts the threads. Each builds its runtime and runs `make(context)` to its end; `make` is
/// cloned for each.
///
/// ```no_run
/// # use jindou_net::{NetSettings, ShardContext, ShardsSettings, allowed_cpus, probe, start};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let settings = ShardsSettings {
///     shard_count: 2,
///     cpus: allowed_cpus()?,
///     driver: probe("auto".parse()?)?.kind,
///     net: NetSettings::default(),
/// };
/// let shards = start(&settings, async |context: ShardContext| {
///     // let driver = Driver::new(context, machine, executor)?; driver.run().await;
/// })?;
/// shards.wait()?;
/// # Ok(())
/// # }
/// ```
pub fn start<F, Fut>(settings: &ShardsSettings, make: F) -> Result<Shards, ShardError>
where
    F: FnOnce(ShardContext) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let shard_count = settings.shard_count.clamp(1, 1024);
    let counters: Vec<Arc<Counters>> = (0..shard_count).map(|_| Arc::default()).collect();
    let wakers = counters
        .iter()
        .map(|counters| ShardWaker::new(Arc::clone(counters)))
        .collect::<io::Result<Arc<[ShardWaker]>>>()
        .map_err(|source| ShardError::Start { shard: 0, source })?;
    let stop = Stop::new(Arc::clone(&wakers));
    let meshes = mesh::mesh(&wakers, settings.net.mesh);
    let cpus = pin::plan(&settings.cpus, shard_count);
    let origin = Instant::now();
    let (sender, ends) = mpsc::channel();
    let mut threads = Vec::new();
    for ((shard, mesh), counters) in (0..shard_count).zip(meshes).zip(&counters) {
        let seed = Seed {
            shard: ShardId(shard),
            shard_count,
            cpu: cpus.get(usize::from(shard)).copied(),
            driver: settings.driver,
            net: settings.net,
            counters: Arc::clone(counters),
            stop: stop.clone(),
            waker: wakers.get(usize::from(shard)).cloned(),
            origin,
        };
        let make = make.clone();
        let sender = sender.clone();
        let thread = thread::Builder::new()
            .name(format!("shard-{shard}"))
            .spawn(move || {
                let run = std::panic::AssertUnwindSafe(|| seed.run(mesh, make));
                let end = match std::panic::catch_unwind(run) {
                    Ok(result) => result.map_err(|source| ShardError::Start { shard, source }),
                    Err(panic) => {
                        Err(ShardError::Panicked { shard, text: text_of(panic.as_ref()) })
                    }
                };
                // Nobody listens any more when the process is ending already.
                let _ = sender.send((shard, end));
            })
            .map_err(|source| ShardError::Start { shard, source })?;
        threads.push(thread);
    }
    Ok(Shards { threads, ends, stop, wakers, counters })
}

/// What a thread needs to make its context.
struct Seed {
    shard: ShardId,
    shard_count: u16,
    cpu: Option<usize>,
    driver: DriverKind,
    net: NetSettings,
    counters: Arc<Counters>,
    stop: Stop,
    waker: Option<ShardWaker>,
    origin: Instant,
}

impl Seed {
    fn run<F, Fut>(self, mesh: Mesh, make: F) -> io::Result<()>
    where
        F: FnOnce(ShardContext) -> Fut,
        Fut: Future<Output = ()> + 'static,
    {
        if let Some(cpu) = self.cpu
            && let Err(error) = pin::pin(cpu)
        {
            tracing::warn!(%error, shard = self.shard.0, cpu, "cannot pin the shard to its CPU");
        }
        let waker = self.waker.ok_or(io::ErrorKind::InvalidInput)?;
        let mut runtime = rt::build(self.driver)?;
        let context = ShardContext {
            shard: self.shard,
            shard_count: self.shard_count,
            cpu: self.cpu,
            driver: self.driver,
            handle: Handle::new(
                self.shard,
                self.driver,
                self.net,
                self.counters,
                waker,
                self.origin,
            ),
            stop: self.stop,
            mesh,
        };
        runtime.block_on(Box::pin(async move { make(context).await }));
        Ok(())
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic".to_owned())
}

impl Shards {
    /// Stops all of them.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Wakes shard `shard`, from any thread.
    pub fn waker(&self, shard: ShardId) -> Option<ShardWaker> {
        self.wakers.get(usize::from(shard.0)).cloned()
    }

    /// What each shard has counted, by shard.
    pub fn counters(&self) -> &[Arc<Counters>] {
        &self.counters
    }

    /// Waits until every shard has ended, or one has failed: then the others are in an unknown
    /// state and the process must end.
    pub fn wait(self) -> Result<(), ShardError> {
        for _ in 0..self.threads.len() {
            match self.ends.recv() {
                Ok((_, end)) => end?,
                Err(mpsc::RecvError) => break,
            }
        }
        for thread in self.threads {
            // A panic was reported above.
            let _ = thread.join();
        }
        Ok(())
    }
}
