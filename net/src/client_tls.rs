//! TLS of clients: what a node shows on its `wss` port.
//!
//! TLS 1.2 and 1.3, no client certificates, no ALPN. Sessions are resumed by tickets that only this
//! process can read. The certificate can be replaced while the node runs; sessions that are open
//! keep theirs.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    Error, ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};

use crate::link::tls::{
    PemFile, Session, TlsError, TlsFault, broken_pem, certificates, pair_error,
};

/// A certificate with its key, shared by the shards of a node. Cheap to clone; a replacement counts
/// for all clones.
#[derive(Clone)]
pub struct ClientTls(Arc<RwLock<Arc<ServerConfig>>>);

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

impl ClientTls {
    /// From a certificate with its chain and its private key.
    ///
    /// # Errors
    /// Which file is of no use, and why.
    pub fn new(chain: PemFile<'_>, key: PemFile<'_>) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(RwLock::new(config(chain, key)?))))
    }

    /// Shows another certificate to connections that begin from now on.
    ///
    /// # Errors
    /// As for [`ClientTls::new`]; then nothing changes.
    pub fn replace(&self, chain: PemFile<'_>, key: PemFile<'_>) -> Result<(), TlsError> {
        let config = config(chain, key)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// The node's end of a new connection.
    pub(crate) fn session(&self) -> Result<Session, TlsFault> {
        let config = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        Session::server(config)
    }
}

fn config(chain: PemFile<'_>, key: PemFile<'_>) -> Result<Arc<ServerConfig>, TlsError> {
    let certificates = certificates(chain)?;
    let private_key = PrivateKeyDer::from_pem_slice(key.bytes)
        .map_err(|error| broken_pem(key, "private key", &error))?;
    let unusable = |error: Error| pair_error(chain, key, &error);
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(certificates, private_key)
        .map_err(unusable)?;
    config.ticketer = ring::Ticketer::new().map_err(unusable)?;
    Ok(Arc::new(config))
}
