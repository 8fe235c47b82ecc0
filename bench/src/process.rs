//! What processes cost, read from `/proc`: CPU time of all their threads, resident memory.

use std::fs;
use std::time::Duration;

/// CPU time of a process so far: of its live threads by the scheduler's count, in ns; by the tick
/// counters of the whole process where the kernel does not keep that. `None`: no such process.
pub(crate) fn cpu(pid: u32) -> Option<Duration> {
    let mut total = 0;
    let mut seen = false;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let line = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        if let Some(ns) = line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()) {
            total += ns;
            seen = true;
        }
    }
    if seen { Some(Duration::from_nanos(total)) } else { cpu_ticks(pid) }
}

fn cpu_ticks(pid: u32) -> Option<Duration> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold blanks; what follows the last bracket does not. utime and stime
    // are fields 14 and 15 of the line, 12 and 13 from there.
    let (_, rest) = line.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let utime: u64 = fields.next()?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    // USER_HZ is 100 on every Linux there is.
    Some(Duration::from_millis((utime + stime) * 10))
}

/// Resident bytes of a process.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
        let line = text.lines().find_map(|line| line.strip_prefix("Rss:"))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        return Some(kib * 1024);
    }
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// CPU time of some processes and of the generator, for differences.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    /// Each process, in the order asked for.
    pub(crate) cpu: Vec<Option<Duration>>,
    /// Each process's memory.
    pub(crate) resident: Vec<Option<u64>>,
    /// The generator.
    pub(crate) own: Duration,
}

impl Usage {
    pub(crate) fn read(pids: &[u32]) -> Usage {
        Usage {
            cpu: pids.iter().map(|pid| cpu(*pid)).collect(),
            resident: pids.iter().map(|pid| resident(*pid)).collect(),
            own: cpu(std::process::id()).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn our_own_process_has_used_cpu_and_memory() {
        let own = std::process::id();
        let before = cpu(own).unwrap();
        let mut sum = 0u64;
        while cpu(own).unwrap() < before + Duration::from_millis(20) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(cpu_ticks(own).is_some());
        assert!(resident(own).unwrap() > 100_000);
        assert_eq!(cpu(u32::MAX), None);
    }
}
