//! Clients over WebSocket with TLS: a published SDK, the certificate's life, and who is hostile before
//! a handshake is over. How TLS itself behaves on sockets: `net/tests/tls_clients.rs`.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::programs::{converse, npm, repository};
use crate::sdk;
use crate::support::client::{Channel, Client, Transport};
use crate::support::http;
use crate::support::node::Node;
use crate::support::{Dice, PATIENCE, alone, eventually, open_files};

/// A CA and the files of a node on loopback.
struct Files {
    authority: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // OpenSSL takes a certificate whose issuer has the same name for its own issuer.
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let files = Self { authority, folder: tempfile::tempdir().unwrap() };
        fs::write(files.ca(), files.authority.pem()).unwrap();
        files.write();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ca(&self) -> PathBuf {
        self.path("ca.crt")
    }

    /// A new certificate; gives it.
    fn write(&self) -> CertificateDer<'static> {
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        fs::write(self.path("node.crt"), certificate.pem()).unwrap();
        fs::write(self.path("node.key"), key.serialize_pem()).unwrap();
        certificate.der().clone()
    }

    /// A node with these files that was not started.
    fn node(&self, environment: &[(&str, &str)]) -> Node {
        let mut node = Node::prepare(environment);
        let address = format!("wss://{}", node.wss());
        node.set("WK_WSSADDR", &address);
        node.set("WK_WSSCONFIG_CERTFILE", text(&self.path("node.crt")));
        node.set("WK_WSSCONFIG_KEYFILE", text(&self.path("node.key")));
        node
    }

    /// Shakes hands, and tells what certificate the node shows.
    fn shown(
        &self,
        node: &Node,
    ) -> (StreamOwned<ClientConnection, TcpStream>, CertificateDer<'static>) {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect(node.wss()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        stream.conn.complete_io(&mut stream.sock).unwrap();
        let shown = stream.conn.peer_certificates().unwrap()[0].clone().into_owned();
        (stream, shown)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn npm_wukongimjssdk_makes_its_round_trip_over_tls() {
    let files = Files::new();
    let names = ["package.json", "package-lock.json", ".npmrc", "load.js", "main.js"];
    let folder = npm("sdk-js", &repository("tests/sdk/js"), &names);
    let mut node = files.node(&[("WK_TOKENAUTHON", "true")]);
    node.launch();
    node.wait_ready();
    let route = http::request(&node.api_address(), "GET", "/route?uid=ann", b"").unwrap().json();
    assert_eq!(route["wss_addr"], format!("wss://{}", node.wss()));
    let mut program = Command::new("node");
    program
        .arg("main.js")
        .current_dir(folder)
        .env("NODE_EXTRA_CA_CERTS", files.ca())
        .env("JINDOU_API", format!("http://{}", node.api_address()))
        .env("JINDOU_WS", route["wss_addr"].as_str().unwrap())
        .env("JINDOU_RUN", "wss");
    converse(&mut node, &mut program, sdk::STEPS, Duration::from_secs(240));
}

#[test]
fn a_certificate_is_read_again_and_a_bad_one_is_refused() {
    let files = Files::new();
    let mut node = files.node(&[]);
    node.launch();
    node.wait_ready();
    let (mut open, first) = files.shown(&node);
    let second = files.write();
    assert_ne!(first, second);
    node.signal(Signal::SIGHUP);
    eventually("the new certificate", || (files.shown(&node).1 == second).then_some(()));
    // The connection that was open speaks on under the old one.
    open.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    open.read_exact(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 "), "{answer:?}");

    fs::write(files.path("node.key"), "no key").unwrap();
    node.signal(Signal::SIGHUP);
    eventually("the refusal", || node.log().contains("the certificate in use stays").then_some(()));
    assert_eq!(files.shown(&node).1, second);
    let (status, _) = node.terminate();
    assert!(status.success());

    node.launch();
    assert!(!node.ended().success());
    let log = node.log();
    let wanted =
        format!("wssConfig.keyFile {} holds no private key", text(&files.path("node.key")));
    assert!(log.contains(&wanted), "{log}");
}

/// Silent handshakes, garbage, and those that go on byte by byte: nobody else notices.
#[test]
fn who_is_hostile_before_a_handshake_is_over_harms_nobody() {
    const SILENT: usize = 2500;
    let _alone = alone();
    open_files(8192);
    let files = Files::new();
    let mut node = files.node(&[]);
    node.launch();
    node.wait_ready();
    let mut dice = Dice::new("wss::who_is_hostile_before_a_handshake_is_over_harms_nobody");
    let mut ann = Client::connect(&node, "ann", Transport::Tcp);
    let mut bob = Client::connect(&node, "bob", Transport::Ws);
    let mut count = 0;
    let mut chat = || {
        count += 1;
        let text = format!("message {count}");
        ann.deliver(&Channel::person("bob"), &text, text.as_bytes());
        assert_eq!(bob.receive().payload, text.as_bytes());
    };
    let before = memory(&node);
    let mut silent = Vec::new();
    for place in 0..SILENT {
        let mut socket = TcpStream::connect(node.wss()).unwrap();
        let size = dice.between(0, 600) as usize;
        let mut bytes = dice.bytes(size);
        // Half of them begin as a handshake does, and promise more than they bring.
        if place % 2 == 0 {
            bytes.splice(0..0, [0x16, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb]);
        }
        let _ = socket.write_all(&bytes);
        silent.push(socket);
        if place % 100 == 0 {
            chat();
        }
    }
    let (stream, _) = files.shown(&node);
    chat();
    let grown = memory(&node).saturating_sub(before);
    assert!(grown < 200 << 20, "{SILENT} silent handshakes took {grown} bytes");
    drop((stream, silent));
    for _ in 0..10 {
        chat();
    }
    assert!(node.is_alive());
}

/// Resident bytes of the node.
fn memory(node: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}
