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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::{io::Write as _, sync::LazyLock};

    use proptest::{collection::vec, prelude::*, sample::Index};
    use rustls::{
        ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion,
        pki_types::{CertificateDer, ServerName},
    };

    use super::*;

    /// One certificate for all cases: making one takes longer than a case.
    static SERVER: LazyLock<(ClientTls, CertificateDer<'static>)> = LazyLock::new(|| {
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (chain, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
        let file = |name, text: &'static [u8]| PemFile { name, bytes: text };
        let (chain, key) = (chain.leak().as_bytes(), key.leak().as_bytes());
        let tls = ClientTls::new(file("a.crt", chain), file("a.key", key)).unwrap();
        (tls, pair.cert.der().clone())
    });

    fn client(version: &'static SupportedProtocolVersion) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        roots.add(SERVER.1.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
    }

    /// What a client has to say until it has said `message`, given in `pieces` to a session, which may
    /// find one byte changed on its way. What the session opened, and what it said against it.
    fn opened(
        version: &'static SupportedProtocolVersion,
        message: &[u8],
        pieces: &[usize],
        changed: Option<(Index, u8)>,
    ) -> (Vec<u8>, Option<TlsFault>) {
        let (mut client, mut session) = (client(version), SERVER.0.session().unwrap());
        let (mut plain, mut pieces) = (Vec::new(), pieces.iter().cycle());
        let mut is_said = false;
        loop {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            if is_said && let Some((place, change)) = changed {
                let byte = place.index(bytes.len());
                if let Some(byte) = bytes.get_mut(byte) {
                    *byte ^= change;
                }
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let size = (*pieces.next().unwrap()).min(rest.len());
                let (piece, later) = rest.split_at(size);
                if let Err(fault) = session.open(piece, |bytes| plain.extend_from_slice(bytes)) {
                    return (plain, Some(fault));
                }
                rest = later;
            }
            if is_said {
                return (plain, None);
            }
            let mut answer = Vec::new();
            session.pull(&mut answer).unwrap();
            let mut answer = &answer[..];
            while !answer.is_empty() {
                client.read_tls(&mut answer).unwrap();
                client.process_new_packets().unwrap();
            }
            if !client.is_handshaking() && !session.is_handshaking() {
                client.writer().write_all(message).unwrap();
                is_said = true;
            }
        }
    }

    fn version() -> impl Strategy<Value = &'static SupportedProtocolVersion> {
        prop_oneof![Just(&TLS12), Just(&TLS13)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_stream_is_opened_whole_in_whatever_pieces_it_comes(
            version in version(),
            message in vec(any::<u8>(), 1..40_000),
            pieces in vec(1_usize..5_000, 1..20),
        ) {
            let (plain, fault) = opened(version, &message, &pieces, None);
            prop_assert!(fault.is_none(), "{fault:?}");
            prop_assert!(plain == message);
        }

        #[test]
        fn of_a_stream_that_was_changed_only_what_came_before_is_opened(
            version in version(),
            message in vec(any::<u8>(), 1..40_000),
            pieces in vec(1_usize..5_000, 1..20),
            place in any::<Index>(),
            change in 1_u8..,
        ) {
            let (plain, _) = opened(version, &message, &pieces, Some((place, change)));
            prop_assert!(plain.len() < message.len() && message.starts_with(&plain));
        }

        #[test]
        fn whatever_comes_first_ends_in_a_fault_or_waits(
            begin in prop_oneof![Just(&b""[..]), Just(&b"\x16\x03\x01"[..]), Just(&b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c\x03\x03"[..])],
            bytes in vec(any::<u8>(), 0..2_000),
            pieces in vec(1_usize..300, 1..10),
        ) {
            let mut session = SERVER.0.session().unwrap();
            let bytes = [begin, &bytes].concat();
            let (mut rest, mut pieces) = (&bytes[..], pieces.iter().cycle());
            while !rest.is_empty() {
                let (piece, later) = rest.split_at((*pieces.next().unwrap()).min(rest.len()));
                if session.open(piece, |_| panic!("nothing was agreed")).is_err() {
                    break;
                }
                rest = later;
            }
            prop_assert!(session.is_handshaking());
            // An alert at most: nobody makes the node say much.
            let mut out = Vec::new();
            session.pull(&mut out).unwrap();
            prop_assert!(out.len() < 100, "{} bytes", out.len());
        }
    }
}
