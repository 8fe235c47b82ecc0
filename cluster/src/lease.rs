//! How long a leader is sure that nobody else leads.

use std::collections::BTreeSet;

use openraft::{AsyncRuntime, async_runtime::watch::WatchReceiver};

use crate::{
    group::Group,
    liveness::{Liveness, millis},
};

impl<R: AsyncRuntime> Group<R> {
    /// Until when (milliseconds of the owner's clock) no other leader can have been elected;
    /// 0 when this replica does not serve, `u64::MAX` when nobody else votes.
    ///
    /// A voter counts with the last ping that it answered, provided that it has acknowledged an
    /// append of this term since its answers have come without a gap: then it follows this leader,
    /// and has promised to go on doing so. A majority, this node included, is needed in each set of
    /// voters.
    pub(crate) fn compute_lease(&self, life: &Liveness<R>) -> u64 {
        if !self.is_leading() {
            return 0;
        }
        let node = self.shared.node;
        let (server, data) = (self.raft.server_metrics(), self.raft.data_metrics());
        let (server, data) = (server.borrow_watched(), data.borrow_watched());
        let answered = |voter: u64| {
            let (since, answered_ms) = life.run_of(voter)?;
            let acked = data.heartbeat.as_ref()?.get(&voter)?.as_ref()?;
            (**acked >= since).then_some(answered_ms)
        };
        let until = server
            .membership_config
            .membership()
            .get_joint_config()
            .iter()
            .map(|voters| quorum_answered(node, voters, answered))
            .min()
            .unwrap_or(0);
        if until == 0 || until == u64::MAX {
            return until;
        }
        until.saturating_add(millis(life.lease))
    }
}

/// The oldest of the newest answers that make a majority together with this node.
fn quorum_answered(
    node: u64,
    voters: &BTreeSet<u64>,
    answered: impl Fn(u64) -> Option<u64>,
) -> u64 {
    let needed = voters.len() / 2 + 1 - usize::from(voters.contains(&node));
    if needed == 0 {
        return u64::MAX;
    }
    let others = voters.iter().filter(|voter| **voter != node);
    let mut sent: Vec<u64> = others.filter_map(|voter| answered(*voter)).collect();
    sent.sort_unstable_by(|a, b| b.cmp(a));
    sent.get(needed - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(voters: &[u64], answers: &[(u64, u64)]) -> u64 {
        let voters = voters.iter().copied().collect();
        quorum_answered(1, &voters, |voter| {
            answers.iter().find(|(node, _)| *node == voter).map(|(_, sent)| *sent)
        })
    }

    #[test]
    fn the_slowest_of_a_majority_bounds_the_lease() {
        assert_eq!(lease(&[1], &[]), u64::MAX);
        assert_eq!(lease(&[1, 2], &[(2, 70)]), 70);
        assert_eq!(lease(&[1, 2], &[]), 0);
        assert_eq!(lease(&[1, 2, 3], &[(2, 70), (3, 90)]), 90);
        assert_eq!(lease(&[1, 2, 3], &[(3, 90)]), 90);
        assert_eq!(lease(&[1, 2, 3, 4, 5], &[(2, 70), (3, 90), (4, 80)]), 80);
        assert_eq!(lease(&[1, 2, 3, 4, 5], &[(2, 70)]), 0);
        // A leader that is about to leave does not count itself.
        assert_eq!(lease(&[2, 3, 4], &[(2, 70), (3, 90)]), 70);
    }
}
