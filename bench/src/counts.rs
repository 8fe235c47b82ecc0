//! What a run of connections that send and receive has counted.

use std::collections::BTreeMap;

use crate::latency::Latency;
use crate::ledger::Rest;

/// What a run has counted. Windowed figures are of the measuring time only.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    /// SENDs of the whole run.
    pub(crate) sent: u64,
    /// SENDACKs with success.
    pub(crate) acked: u64,
    /// Other SENDACKs, by reason.
    pub(crate) refused: BTreeMap<u8, u64>,
    /// RECVs, the first of each message at each receiver.
    pub(crate) delivered: u64,
    /// Further ones of the same message at the same receiver, and RECVs of settled refusals.
    pub(crate) duplicates: u64,
    /// RECVs with a seq below one seen before on that connection.
    pub(crate) disordered: u64,
    /// RECVs at a connection they were not for.
    pub(crate) misdelivered: u64,
    /// RECVs of messages of other runs.
    pub(crate) foreign: u64,
    /// Connections lost, with the reason of the first.
    pub(crate) lost: u64,
    pub(crate) lost_why: Option<String>,
    /// SENDACKs with success within the window.
    pub(crate) window_acked: u64,
    /// First RECVs within the window.
    pub(crate) window_delivered: u64,
    /// From the intended moment to SENDACK, of messages intended within the window.
    pub(crate) ack_latency: Latency,
    /// From there to RECV.
    pub(crate) recv_latency: Latency,
    /// What is open at the end.
    pub(crate) rest: Rest,
}

impl Counts {
    pub(crate) fn new() -> anyhow::Result<Counts> {
        Ok(Counts {
            sent: 0,
            acked: 0,
            refused: BTreeMap::new(),
            delivered: 0,
            duplicates: 0,
            disordered: 0,
            misdelivered: 0,
            foreign: 0,
            lost: 0,
            lost_why: None,
            window_acked: 0,
            window_delivered: 0,
            ack_latency: Latency::new()?,
            recv_latency: Latency::new()?,
            rest: Rest::default(),
        })
    }

    /// Adds those of another thread.
    pub(crate) fn merge(&mut self, other: &Counts) -> anyhow::Result<()> {
        self.sent += other.sent;
        self.acked += other.acked;
        for (reason, n) in &other.refused {
            *self.refused.entry(*reason).or_default() += n;
        }
        self.delivered += other.delivered;
        self.duplicates += other.duplicates;
        self.disordered += other.disordered;
        self.misdelivered += other.misdelivered;
        self.foreign += other.foreign;
        self.lost += other.lost;
        self.lost_why = self.lost_why.take().or_else(|| other.lost_why.clone());
        self.window_acked += other.window_acked;
        self.window_delivered += other.window_delivered;
        self.ack_latency.merge(&other.ack_latency)?;
        self.recv_latency.merge(&other.recv_latency)?;
        self.rest.undelivered += other.rest.undelivered;
        self.rest.unanswered += other.rest.unanswered;
        self.rest.phantoms += other.rest.phantoms;
        Ok(())
    }
}
