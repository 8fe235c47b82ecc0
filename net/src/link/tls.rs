//! TLS of links: what a node shows and whom it believes, and one end of one link.
//!
//! TLS 1.3, and both ends show a certificate. rustls moves no bytes by itself: [`Session`] turns
//! what came into plaintext, and plaintext into what shall leave; sockets are the callers'
//! business. Nothing is resumed: links begin seldom, and each end is looked at every time.

use std::{
    fmt,
    io::{self, BufRead, Write},
    net::IpAddr,
    sync::Arc,
};

use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Connection, Error, RootCertStore,
    ServerConfig, ServerConnection,
    client::{Resumption, VerifierBuilderError, WebPkiServerVerifier},
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};

/// Told when this end is plain and the other is not.
pub(crate) const OTHER_IS_TLS: &str =
    "the other node speaks TLS: cluster.tls must be set on all nodes or none";
/// Told when the other end is plain and this one is not.
pub(crate) const OTHER_IS_PLAIN: &str =
    "the other node does not speak TLS: cluster.tls must be set on all nodes or none";

/// Bytes that tell TLS from a plain hello.
pub(crate) const BEGIN_SIZE: usize = 3;

/// Whether a link begins as TLS does: a handshake record of version 3.x. Read as a frame's length
/// it would be over the bound of a hello.
pub(crate) fn is_tls(begin: &[u8]) -> bool {
    matches!(begin, [0x16, 0x03, 0x01..=0x04, ..])
}

/// PEM text, and the file that it came from.
#[derive(Clone, Copy)]
pub struct PemFile<'a> {
    /// Named in errors.
    pub name: &'a str,
    /// Its contents.
    pub bytes: &'a [u8],
}

impl fmt::Debug for PemFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PemFile").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a node's certificates are of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// PEM or not, it is not what is wanted.
    #[error("{file} holds no {what} in PEM form")]
    Missing {
        /// The file.
        file: String,
        /// What is wanted.
        what: &'static str,
    },
    /// It can't be read or used.
    #[error("{files}: {reason}")]
    Unusable {
        /// The file, or both when they don't belong together.
        files: String,
        /// Why.
        reason: String,
    },
}

/// What a node shows on its links, and whom it believes: made once, shared by its shards.
#[derive(Clone)]
pub struct LinkTls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl fmt::Debug for LinkTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkTls").finish_non_exhaustive()
    }
}

impl LinkTls {
    /// From a certificate with its chain, its private key, and the certificates of the CA that all
    /// nodes' certificates come from. The node shows its certificate both as a server and as a
    /// client; a peer's must name the host of the peer's address, which may be an IP address.
    ///
    /// # Errors
    /// Which file is of no use, and why.
    pub fn new(
        chain: PemFile<'_>,
        key: PemFile<'_>,
        authority: PemFile<'_>,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(roots(authority)?);
        let own = certificates(chain)?;
        let own_key = PrivateKeyDer::from_pem_slice(key.bytes)
            .map_err(|error| broken_pem(key, "private key", &error))?;
        let pair = |error: Error| pair_error(chain, key, &error);
        let refused = |error: VerifierBuilderError| unusable(authority, error.to_string());
        let asked = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(refused)?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(pair)?
            .with_client_cert_verifier(asked)
            .with_single_cert(own.clone(), own_key.clone_key())
            .map_err(pair)?;
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        let wanted = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(refused)?;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(pair)?
            .with_webpki_verifier(wanted)
            .with_client_auth_cert(own, own_key)
            .map_err(pair)?;
        client.resumption = Resumption::disabled();
        Ok(Self { client: Arc::new(client), server: Arc::new(server) })
    }
}

/// What speaks against a certificate, or against it and its key.
pub(crate) fn pair_error(chain: PemFile<'_>, key: PemFile<'_>, error: &Error) -> TlsError {
    if matches!(error, Error::InvalidCertificate(_)) {
        return bad_certificate(chain, error);
    }
    let files = format!("{} and {}", chain.name, key.name);
    TlsError::Unusable { files, reason: error.to_string() }
}

fn unusable(file: PemFile<'_>, reason: String) -> TlsError {
    TlsError::Unusable { files: file.name.to_owned(), reason }
}

fn bad_certificate(file: PemFile<'_>, error: &Error) -> TlsError {
    unusable(file, format!("a certificate can't be used: {}", text(error)))
}

fn missing(file: PemFile<'_>, what: &'static str) -> TlsError {
    TlsError::Missing { file: file.name.to_owned(), what }
}

pub(crate) fn broken_pem(file: PemFile<'_>, what: &'static str, error: &pem::Error) -> TlsError {
    if matches!(error, pem::Error::NoItemsFound) {
        missing(file, what)
    } else if matches!(error, pem::Error::MissingSectionEnd { .. }) {
        unusable(file, "it has a BEGIN line without its END line".to_owned())
    } else {
        unusable(file, error.to_string())
    }
}

/// An error in words; what is said of a certificate is said where it is known whose it is.
fn text(error: &Error) -> String {
    if let Error::InvalidCertificate(why) = error { why.to_string() } else { error.to_string() }
}

pub(crate) fn certificates(file: PemFile<'_>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let what = "certificate";
    let all = CertificateDer::pem_slice_iter(file.bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| broken_pem(file, what, &error))?;
    if all.is_empty() { Err(missing(file, what)) } else { Ok(all) }
}

fn roots(file: PemFile<'_>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| bad_certificate(file, &error))?;
    }
    Ok(roots)
}

/// What ends a link with TLS.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum TlsFault {
    #[error("{OTHER_IS_PLAIN}")]
    Plain,
    #[error("the peer closed it")]
    Closed,
    #[error("its certificate is not accepted: {0}")]
    Certificate(String),
    #[error("the other node does not accept the certificate of this one: {0}")]
    Unaccepted(String),
    #[error("TLS: {0}")]
    Other(String),
}

impl From<Error> for TlsFault {
    fn from(error: Error) -> Self {
        let text = text(&error);
        if matches!(error, Error::InvalidCertificate(_) | Error::NoCertificatesPresented) {
            Self::Certificate(text)
        } else if matches!(
            error,
            Error::AlertReceived(
                AlertDescription::BadCertificate
                    | AlertDescription::UnsupportedCertificate
                    | AlertDescription::CertificateRevoked
                    | AlertDescription::CertificateExpired
                    | AlertDescription::CertificateUnknown
                    | AlertDescription::CertificateRequired
                    | AlertDescription::UnknownCA
                    // A CA of the same name with another key.
                    | AlertDescription::DecryptError
                    | AlertDescription::AccessDenied
            )
        ) {
            Self::Unaccepted(text)
        } else {
            Self::Other(text)
        }
    }
}

impl From<io::Error> for TlsFault {
    fn from(error: io::Error) -> Self {
        Self::Other(error.to_string())
    }
}

/// The name that the certificate behind an address (host:port) must bear.
pub(crate) fn peer_name(address: &str) -> Result<ServerName<'static>, TlsFault> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(ServerName::from(ip));
    }
    ServerName::try_from(bare.to_owned())
        .map_err(|_| TlsFault::Other(format!("no certificate can bear the name {bare:?}")))
}

/// One end of a link.
pub(crate) struct Session {
    connection: Box<Connection>,
    /// Whether anything came.
    is_begun: bool,
}

impl Session {
    /// The dialer's end. What is sealed before the other end has answered leaves after that.
    pub(crate) fn dialer(tls: &LinkTls, name: ServerName<'static>) -> Result<Self, TlsFault> {
        Ok(Self::new(ClientConnection::new(tls.client.clone(), name)?.into()))
    }

    /// The acceptor's end.
    pub(crate) fn acceptor(tls: &LinkTls) -> Result<Self, TlsFault> {
        Ok(Self::new(ServerConnection::new(tls.server.clone())?.into()))
    }

    /// A server's end for clients that are no nodes.
    pub(crate) fn server(config: Arc<ServerConfig>) -> Result<Self, TlsFault> {
        Ok(Self::new(ServerConnection::new(config)?.into()))
    }

    fn new(mut connection: Connection) -> Self {
        // What waits is counted before it is sealed.
        connection.set_buffer_limit(None);
        Self { connection: Box::new(connection), is_begun: false }
    }

    /// Opens what came. rustls holds back one record that is not whole, no more.
    pub(crate) fn open(
        &mut self,
        mut bytes: &[u8],
        mut push: impl FnMut(&[u8]),
    ) -> Result<(), TlsFault> {
        if !self.is_begun && !bytes.is_empty() {
            self.is_begun = true;
            // A handshake record or an alert.
            if !matches!(bytes, [0x15 | 0x16] | [0x15 | 0x16, 0x03, ..]) {
                return Err(TlsFault::Plain);
            }
        }
        while !bytes.is_empty() {
            if self.connection.read_tls(&mut bytes)? == 0 {
                return Err(TlsFault::Closed);
            }
            self.connection.process_new_packets()?;
            self.drain(&mut push)?;
        }
        Ok(())
    }

    fn drain(&mut self, push: &mut impl FnMut(&[u8])) -> Result<(), TlsFault> {
        loop {
            let mut reader = self.connection.reader();
            let size = match reader.fill_buf() {
                Ok([]) => return Err(TlsFault::Closed),
                Ok(plain) => {
                    push(plain);
                    plain.len()
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            reader.consume(size);
        }
    }

    /// Seals plaintext; [`Session::pull`] brings it.
    pub(crate) fn seal(&mut self, plain: &[u8]) -> Result<(), TlsFault> {
        Ok(self.connection.writer().write_all(plain)?)
    }

    /// Whether the ends have not agreed yet.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Tells the other end that nothing follows.
    pub(crate) fn finish(&mut self) {
        self.connection.send_close_notify();
    }

    /// Whether something shall leave.
    pub(crate) fn has_output(&self) -> bool {
        self.connection.wants_write()
    }

    /// Appends all that shall leave. Each byte is pulled once, so it must leave in this order.
    pub(crate) fn pull(&mut self, out: &mut Vec<u8>) -> Result<(), TlsFault> {
        while self.connection.wants_write() {
            self.connection.write_tls(out)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}
