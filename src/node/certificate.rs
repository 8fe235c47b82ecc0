//! The certificate of the `wss` port: read at the start, and again on SIGHUP or when its files have
//! changed, because certificates are short-lived and a node is not.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use flume::RecvTimeoutError;
use jindou_net::{ClientTls, PemFile};

use crate::config::Wss;

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// The names in the configuration, and what stands in the files.
struct Texts {
    chain: (String, Vec<u8>),
    key: (String, Vec<u8>),
}

impl Texts {
    fn read(wss: &Wss) -> anyhow::Result<Self> {
        let read = |key: &'static str, path: &Path| {
            let name = format!("wssConfig.{key} {}", path.display());
            let bytes = fs::read(path).with_context(|| format!("cannot read {name}"))?;
            anyhow::Ok((name, bytes))
        };
        Ok(Self { chain: read("certFile", &wss.cert)?, key: read("keyFile", &wss.key)? })
    }

    fn chain(&self) -> PemFile<'_> {
        PemFile { name: &self.chain.0, bytes: &self.chain.1 }
    }

    fn key(&self) -> PemFile<'_> {
        PemFile { name: &self.key.0, bytes: &self.key.1 }
    }
}

/// Reads the files.
///
/// # Errors
/// Which of them is of no use, and why.
pub(super) fn read(wss: &Wss) -> anyhow::Result<ClientTls> {
    let texts = Texts::read(wss)?;
    Ok(ClientTls::new(texts.chain(), texts.key())?)
}

/// Replaces the certificate when the files change, and whenever something is sent. What is of no use is
/// told, and the one in use stays.
pub(super) fn watch(wss: Wss, tls: ClientTls) -> io::Result<flume::Sender<()>> {
    let (sender, told) = flume::unbounded();
    thread::Builder::new().name("certificate".into()).spawn(move || {
        let mut seen = stamps(&wss);
        loop {
            let is_told = match told.recv_timeout(LOOK_INTERVAL) {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let now = stamps(&wss);
            // Of a pair that is half replaced the other half changes, too.
            if is_told || now != seen {
                seen = now;
                match replace(&wss, &tls) {
                    Ok(()) => tracing::info!("wssConfig: the certificate was read again"),
                    Err(error) => {
                        tracing::error!("the certificate in use stays: {error:#}");
                    }
                }
            }
        }
    })?;
    Ok(sender)
}

fn replace(wss: &Wss, tls: &ClientTls) -> anyhow::Result<()> {
    let texts = Texts::read(wss)?;
    Ok(tls.replace(texts.chain(), texts.key())?)
}

/// What tells a file from its successor; `None`: it is not there.
type Stamp = Option<(u64, u64, Option<SystemTime>)>;

fn stamps(wss: &Wss) -> [Stamp; 2] {
    [&wss.cert, &wss.key].map(|path| {
        let meta = fs::metadata(path).ok()?;
        Some((meta.ino(), meta.len(), meta.modified().ok()))
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::config::ListenAddr;

    #[test]
    fn a_file_that_is_of_no_use_is_named_and_a_change_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let [cert, key] = ["a.crt", "a.key"].map(|name| folder.path().join(name));
        let addr = ListenAddr { host: "127.0.0.1".to_owned(), port: 0 };
        let wss = Wss { addr, cert: cert.clone(), key: key.clone() };
        let error = |wss| format!("{:#}", read(wss).err().unwrap());
        assert!(error(&wss).starts_with("cannot read wssConfig.certFile "), "{}", error(&wss));
        let before = stamps(&wss);
        fs::write(&cert, "hello").unwrap();
        fs::write(&key, "hello").unwrap();
        assert_ne!(before, stamps(&wss));
        assert_eq!(stamps(&wss), stamps(&wss));
        let wanted =
            format!("wssConfig.certFile {} holds no certificate in PEM form", cert.display());
        assert_eq!(error(&wss), wanted);
    }
}
