//! What of the configuration concerns the cluster.

use std::{fs, path::Path};

use anyhow::Context as _;
use bytes::Bytes;
use jindou_cluster::placement::replica_count;
use jindou_core::id::NodeId;
use jindou_net::link::{LinkTls, PemFile};

use crate::config::{Config, TlsFiles};

/// See [`crate::config::Cluster`].
#[derive(Clone, Debug)]
pub(super) struct ClusterSettings {
    /// This node.
    pub(super) node: NodeId,
    /// Where others reach its links.
    pub(super) addr: Option<String>,
    /// Where others reach its API.
    pub(super) api_url: String,
    /// Members at the first start, this node included; empty: a single node, or one that joins.
    pub(super) members: Vec<(NodeId, String)>,
    /// A member to join through.
    pub(super) seed: Option<(NodeId, String)>,
    /// It joins: the members are learned.
    pub(super) is_joining: bool,
    /// The configured secret.
    pub(super) secret: Option<Bytes>,
    /// What links show and believe; `None`: they are plain.
    pub(super) tls: Option<LinkTls>,
    /// Of the settings that all nodes must share.
    pub(super) fingerprint: u64,
    /// Copies of each slot, if fixed.
    pub(super) replica_count: Option<usize>,
}

impl ClusterSettings {
    /// From the configuration.
    ///
    /// # Errors
    /// What can't work, with what to do about it.
    pub(super) fn of(config: &Config) -> anyhow::Result<Self> {
        let cluster = &config.cluster;
        let node = NodeId(cluster.node_id.into());
        let members: Vec<_> =
            cluster.init_nodes.iter().map(|m| (NodeId(m.id.into()), m.addr.clone())).collect();
        let seed = cluster.seed.as_ref().map(|m| (NodeId(m.id.into()), m.addr.clone()));
        if let Some((seed, _)) = &seed {
            anyhow::ensure!(
                *seed != node,
                "cluster.seed (WK_CLUSTER_SEED) names this node itself: name a member of the cluster"
            );
            anyhow::ensure!(
                cluster.server_addr.is_some(),
                "cluster.seed needs cluster.serverAddr (WK_CLUSTER_SERVERADDR), at which the others \
                 reach this node"
            );
        }
        let own = members.iter().find(|(id, _)| *id == node).map(|(_, addr)| addr.clone());
        Ok(Self {
            node,
            addr: cluster.server_addr.clone().or(own),
            api_url: cluster.api_url.clone().unwrap_or_else(|| config.route.api.clone()),
            is_joining: seed.is_some(),
            members: if seed.is_some() { Vec::new() } else { members },
            seed,
            secret: cluster.secret.as_ref().map(|s| Bytes::copy_from_slice(s.reveal().as_bytes())),
            tls: cluster.tls.as_ref().map(read_tls).transpose()?,
            fingerprint: config.fingerprint(),
            replica_count: cluster.replica_count,
        })
    }

    /// How many replicas a slot has on so many nodes.
    pub(super) fn replicas(&self, node_count: usize) -> usize {
        let rule = replica_count(node_count);
        self.replica_count.unwrap_or(rule).clamp(1, node_count.max(1))
    }
}

/// Reads the files of `cluster.tls`.
fn read_tls(files: &TlsFiles) -> anyhow::Result<LinkTls> {
    let read = |key: &'static str, path: &Path| {
        let name = format!("cluster.tls.{key} {}", path.display());
        let bytes = fs::read(path).with_context(|| format!("cannot read {name}"))?;
        anyhow::Ok((name, bytes))
    };
    let cert = read("certFile", &files.cert)?;
    let key = read("keyFile", &files.key)?;
    let ca = read("caFile", &files.ca)?;
    Ok(LinkTls::new(pem(&cert), pem(&key), pem(&ca))?)
}

fn pem((name, bytes): &(String, Vec<u8>)) -> PemFile<'_> {
    PemFile { name, bytes }
}

#[cfg(test)]
impl ClusterSettings {
    /// Node 1 of a cluster of two.
    pub(super) fn example() -> Self {
        Self {
            node: NodeId(1),
            addr: Some("h:1".into()),
            api_url: "http://h:5001".into(),
            members: vec![(NodeId(1), "h:1".into()), (NodeId(2), "h:2".into())],
            seed: None,
            is_joining: false,
            secret: None,
            tls: None,
            fingerprint: 1,
            replica_count: None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_replica_count_is_the_configured_one_or_follows_the_nodes() {
        let own = ClusterSettings::example();
        assert_eq!([1, 3, 4, 5].map(|nodes| own.replicas(nodes)), [1, 3, 3, 5]);
        let fixed = ClusterSettings { replica_count: Some(3), ..own };
        assert_eq!([1, 5].map(|nodes| fixed.replicas(nodes)), [1, 3]);
    }

    #[test]
    fn a_tls_file_that_is_of_no_use_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let [cert, key, ca] = ["a.crt", "a.key", "ca.crt"].map(|name| folder.path().join(name));
        let files = TlsFiles { cert, key, ca: ca.clone() };
        let error = read_tls(&files).unwrap_err().to_string();
        assert!(error.starts_with("cannot read cluster.tls.certFile ") && error.ends_with("a.crt"));
        for path in [&files.cert, &files.key, &files.ca] {
            fs::write(path, "hello").unwrap();
        }
        let error = read_tls(&files).unwrap_err().to_string();
        let wanted =
            format!("cluster.tls.caFile {} holds no certificate in PEM form", ca.display());
        assert_eq!(error, wanted);
    }
}
