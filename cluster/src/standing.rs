//! Whether a replica may vote.
//!
//! A replica that was opened for a frame of a peer, with nothing on disk, may be the rest of one
//! that was a voter and has lost its log: what it acknowledged, and whom it voted for, it does not
//! know. It takes part in nothing but copying until its log shows that it was taken out of the
//! voters and made one anew. Whatever the leader's log held at the first contact is history and
//! shows nothing.

use crate::types::{Membership, Vote};

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may vote, stand and lead.
    #[default]
    Full,
    /// The membership that it has seen last, if any, counts it as a voter.
    Lost(History),
    /// The membership that it has seen last does not count it as a voter.
    Apart(History),
}

/// How far back the log shows nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// The last index of the logs of the leaders that have been in contact, each at its first.
    pub(crate) upto: u64,
    /// The last of those leaders: term and node.
    pub(crate) leader: (u64, u64),
}

impl Standing {
    /// That of a replica of which nothing is known.
    pub(crate) const BLANK: Self = Self::Lost(History { upto: 0, leader: (0, 0) });

    pub(crate) fn may_vote(self) -> bool {
        self == Self::Full
    }

    /// A leader whose log ends at `last` is in contact.
    pub(crate) fn met(self, leader: &Vote, last: u64) -> Self {
        let id = (leader.leader_id.term, leader.leader_id.node_id);
        let meet = |history: History| {
            let first = history.leader < id;
            let upto = if first { history.upto.max(last) } else { history.upto };
            History { upto, leader: history.leader.max(id) }
        };
        match self {
            Self::Full => Self::Full,
            Self::Lost(history) => Self::Lost(meet(history)),
            Self::Apart(history) => Self::Apart(meet(history)),
        }
    }

    /// The log shows a membership at `index`.
    pub(crate) fn saw(self, node: u64, index: u64, membership: &Membership) -> Self {
        let votes = membership.voter_ids().any(|voter| voter == node);
        match self {
            Self::Full => Self::Full,
            Self::Apart(history) if votes && index > history.upto => Self::Full,
            Self::Lost(history) | Self::Apart(history) if votes => Self::Lost(history),
            Self::Lost(history) | Self::Apart(history) => Self::Apart(history),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn voters(ids: &[u64]) -> Membership {
        let ids: BTreeSet<u64> = ids.iter().copied().collect();
        Membership::new_with_defaults(vec![ids], [3])
    }

    #[test]
    fn a_wiped_voter_must_leave_and_come_back() {
        let standing = Standing::BLANK.met(&Vote::new_committed(4, 1), 100);
        let standing = standing.saw(3, 0, &voters(&[1, 2, 3]));
        assert!(!standing.may_vote());
        let standing = standing.saw(3, 110, &voters(&[1, 2]));
        assert!(!standing.may_vote());
        assert!(standing.saw(3, 120, &voters(&[1, 2, 3])).may_vote());
    }

    #[test]
    fn what_the_leader_knew_at_the_first_contact_shows_nothing() {
        let standing = Standing::BLANK.met(&Vote::new_committed(4, 1), 100);
        let standing = standing.saw(3, 0, &voters(&[1, 2])).saw(3, 50, &voters(&[1, 2, 3]));
        assert!(matches!(standing, Standing::Lost(_)));
        // A second leader's log may hold more of it.
        let standing = standing.met(&Vote::new_committed(5, 2), 200);
        let standing = standing.saw(3, 140, &voters(&[1, 2])).saw(3, 150, &voters(&[1, 2, 3]));
        assert!(matches!(standing, Standing::Lost(_)));
        // The same leader again does not move the mark.
        let standing = standing.met(&Vote::new_committed(5, 2), 300);
        let standing = standing.saw(3, 210, &voters(&[1, 2])).saw(3, 220, &voters(&[1, 2, 3]));
        assert!(standing.may_vote());
    }

    #[test]
    fn a_new_node_becomes_a_voter_as_it_is_made_one() {
        let standing = Standing::BLANK.met(&Vote::new_committed(4, 1), 100);
        let standing = standing.saw(4, 0, &voters(&[1, 2, 3])).saw(4, 100, &voters(&[1, 2, 3]));
        assert!(standing.saw(4, 101, &voters(&[1, 2, 4])).may_vote());
    }
}
