//! The key that signs log-ins of managers: drawn once by the cluster, kept by group 0, and the same
//! at every node, so that each accepts what any other has signed (operations.md §4.2).

use bytes::Bytes;
use jindou_api::Secret;
use jindou_core::{
    request::{Reply, Request, Target},
    shard::CLUSTER_SLOT,
};

use super::{document::LOGIN_KEY, office::Office};
use crate::node::process;

impl Office {
    /// The key: this node's copy of it, else what the leader of group 0 has. Whoever finds none
    /// draws one; of several the first that is committed stands.
    ///
    /// # Errors
    /// A text for the operator: no majority of group 0 has answered.
    pub(in crate::node) async fn login_key(&self) -> Result<Secret, String> {
        if let Some(key) = self.document().read(|document| document.login_key.clone()) {
            return Ok(Secret::new(key));
        }
        if let Some(key) = self.read_login_key().await? {
            return Ok(Secret::new(key));
        }
        let drawn = process::seed().map_err(|error| format!("no random bytes: {error}"))?;
        self.write(vec![(LOGIN_KEY.to_owned(), drawn.to_vec())], true).await?;
        let key = self.read_login_key().await?;
        key.map(Secret::new).ok_or_else(|| "the key of log-ins is not written".to_owned())
    }

    async fn read_login_key(&self) -> Result<Option<Bytes>, String> {
        let request = Request::ReadClusterKeys { prefix: LOGIN_KEY.to_owned() };
        let reply = self.request(Target::Slot(CLUSTER_SLOT), request).await;
        if let Reply::Failed(failure) = reply {
            return Err(failure.to_string());
        }
        let Reply::ClusterKeys(keys) = reply else {
            return Err("the shard answered another question".to_owned());
        };
        Ok(keys.into_iter().find(|(key, _)| key == LOGIN_KEY).map(|(_, value)| value))
    }
}
