//! Which CPU each shard runs on.

use std::io;

use crate::sys;

/// The CPUs on which this process may run, ascending (`taskset` and cpusets are respected).
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    sys::affinity()
}

/// How many shards a node has unless configured: one per CPU; from four on, one CPU is left to the
/// lanes (design.md §1). At least 1.
pub fn shard_count_default(cpu_count: usize) -> u16 {
    let count = if cpu_count >= 4 { cpu_count - 1 } else { cpu_count.max(1) };
    u16::try_from(count).unwrap_or(u16::MAX).min(1 << 10)
}

/// The CPU of each of `shard_count` shards: one each while there are enough, then shared in turn.
/// Empty when no CPU is known: nothing gets pinned.
pub(crate) fn plan(cpus: &[usize], shard_count: u16) -> Vec<usize> {
    cpus.iter()
        .copied()
        .cycle()
        .take(if cpus.is_empty() { 0 } else { usize::from(shard_count) })
        .collect()
}

/// Binds the calling thread to a CPU.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    sys::set_affinity(cpu)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn shards_share_when_there_are_too_few_cpus() {
        assert_eq!(plan(&[2, 5], 4), [2, 5, 2, 5]);
        assert_eq!(plan(&[7], 2), [7, 7]);
        assert!(plan(&[], 2).is_empty());
    }

    #[test]
    fn one_cpu_is_left_to_the_lanes_from_four_on() {
        assert_eq!([0, 1, 2, 3, 4, 16].map(shard_count_default), [1, 1, 2, 3, 3, 15]);
    }

    #[test]
    fn a_pinned_thread_sees_one_cpu() {
        std::thread::spawn(|| {
            let cpu = allowed_cpus().unwrap().into_iter().next().unwrap();
            pin(cpu).unwrap();
            assert_eq!(allowed_cpus().unwrap(), [cpu]);
        })
        .join()
        .unwrap();
    }
}
