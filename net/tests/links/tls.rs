//! Links with TLS: what they carry, and whom they refuse.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use bytes::Bytes;
use jindou_core::{
    effect::{PeerState, Place},
    id::{NodeId, ShardId},
};
use jindou_net::{
    DriverKind, LinkError, LinkTls, PemFile, RefusalCode, Secret, TlsError,
    link::{
        frame::{Frame, FrameReader},
        hello::Hello,
    },
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use crate::{
    cluster::{Node, Plan, Seen, hello, numbers, pause, send},
    common::{PATIENCE, connect, drivers, is_closed, wait_until},
};

const OTHER_IS_TLS: &str =
    "the other node speaks TLS: cluster.tls must be set on all nodes or none";
const OTHER_IS_PLAIN: &str =
    "the other node does not speak TLS: cluster.tls must be set on all nodes or none";

/// A CA of a test.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM form.
struct Pair {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        Self::named("a")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate of a node that others reach under `names`.
    fn pair(&self, names: &[&str]) -> Pair {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        Pair { certificate, key: key.serialize_pem() }
    }

    fn node(&self) -> LinkTls {
        self.pair(&["127.0.0.1"]).tls(self).unwrap()
    }
}

impl Pair {
    /// What a node makes of it that believes `authority`.
    fn tls(&self, authority: &Authority) -> Result<LinkTls, TlsError> {
        tls(&self.certificate, &self.key, &authority.0.pem())
    }
}

fn tls(certificate: &str, key: &str, authority: &str) -> Result<LinkTls, TlsError> {
    LinkTls::new(
        PemFile { name: "node.crt", bytes: certificate.as_bytes() },
        PemFile { name: "node.key", bytes: key.as_bytes() },
        PemFile { name: "ca.crt", bytes: authority.as_bytes() },
    )
}

fn node(driver: DriverKind, node: u64, shard_count: u16, tls: Option<LinkTls>) -> Node {
    let mut plan = Plan::new(driver, node, shard_count);
    plan.settings.tls = tls;
    plan.start()
}

#[test]
fn nodes_with_tls_carry_asks_and_envelopes_of_all_sizes() {
    const COUNT: u64 = 3_000;
    let authority = Authority::new();
    for driver in drivers() {
        let plan = |node, shard_count| {
            let mut plan = Plan::new(driver, node, shard_count);
            plan.settings.tls = Some(authority.node());
            plan.secret = Some(Secret::configured(&b"one"[..]));
            plan
        };
        let (a, b) = (plan(1, 2).start(), plan(2, 3).start());
        a.dial(2, b.address);
        b.dial(1, a.address);
        a.wait_for_peer(2, |s| s == PeerState::Up { incarnation: 200, shard_count: 3 });
        b.wait_for_up(1);
        for shard in 0..3 {
            let place = Place::Shard(ShardId(shard));
            let small = move |links: &jindou_net::Links| {
                links.call(NodeId(2), 5, place, Bytes::from_static(b"body"))
            };
            assert_eq!(a.wait_on(1, small).unwrap(), format!("1 {shard} 5 body"));
            let big = Bytes::from(vec![7; 4 << 20]);
            let sent = big.clone();
            let ask = move |links: &jindou_net::Links| links.call(NodeId(2), 5, place, sent);
            let answer = a.wait_on(0, ask).unwrap();
            assert_eq!(answer.slice(answer.len() - big.len()..), big);
        }
        let huge = Bytes::from(vec![7; 16 << 20]);
        let place = Place::Shard(ShardId(1));
        let outcome = b.wait_on(0, move |links| links.call(NodeId(1), 9, place, huge));
        assert!(matches!(outcome, Err(LinkError::TooLarge { .. })));
        // Numbers, and between them one envelope of 4 MiB, in order.
        a.post(1, |links| {
            assert!(send(links, 2, 2, 0..COUNT));
            let place = Place::Shard(ShardId(2));
            let fill = |out: &mut Vec<u8>| {
                for number in COUNT..COUNT + (4 << 20) / 8 {
                    out.extend_from_slice(&number.to_le_bytes());
                }
            };
            assert!(links.send(NodeId(2), place, fill).is_ok());
            let next = COUNT + (4 << 20) / 8;
            assert!(send(links, 2, 2, next..next + COUNT));
        });
        let mut next = 0;
        while next < 2 * COUNT + (4 << 20) / 8 {
            b.wait_for(|seen| match seen {
                Seen::Envelopes { shard: 2, body, .. } => {
                    for number in numbers(&body) {
                        assert_eq!(number, next);
                        next += 1;
                    }
                    Some(())
                }
                _ => None,
            });
        }
        let at = b.address.to_string();
        let answer = a.wait_on(0, move |links| links.control_at(at, Bytes::from_static(b"x")));
        assert_eq!(answer.unwrap(), (NodeId(2), Bytes::from_static(b"1 x")));
        assert_eq!(a.on(0, |links| links.status()[0].resets), 0);
    }
}

#[test]
fn the_certificate_must_bear_the_host_of_the_address() {
    let authority = Authority::new();
    for driver in drivers() {
        let named = authority.pair(&["localhost"]).tls(&authority).unwrap();
        let (a, b) = (node(driver, 1, 1, Some(authority.node())), node(driver, 2, 2, Some(named)));
        a.dial(2, b.address);
        let refusal = a.wait_for_refusal();
        assert_eq!(refusal.code, RefusalCode::Tls);
        assert!(refusal.text.contains("its certificate is not accepted"), "{refusal}");
        assert!(refusal.text.contains("not valid for name"), "{refusal}");
        let at = format!("localhost:{}", b.address.port());
        a.on(0, |links| links.set_peer(NodeId(2), Some(at)));
        a.wait_for_up(2);
        let at = format!("no_such_name!:{}", b.address.port());
        let answer = a.wait_on(0, move |links| links.control_at(at, Bytes::new()));
        assert!(matches!(answer, Err(LinkError::Refused(_))), "{answer:?}");
    }
}

#[test]
fn a_certificate_of_another_ca_is_refused_with_a_text() {
    let authority = Authority::new();
    let others = [Authority::named("b"), Authority::new()];
    for (driver, other) in drivers().into_iter().flat_map(|d| others.iter().map(move |o| (d, o))) {
        let b = node(driver, 2, 2, Some(authority.node()));
        // It believes nobody here, and nobody believes it.
        let a = node(driver, 1, 1, Some(other.node()));
        // It believes the others, but shows what they do not believe.
        let shown = other.pair(&["127.0.0.1"]).tls(&authority).unwrap();
        let c = node(driver, 3, 1, Some(shown));
        for (dialer, text) in [
            (&a, "its certificate is not accepted"),
            (&c, "the other node does not accept the certificate of this one"),
        ] {
            dialer.dial(2, b.address);
            let refusal = dialer.wait_for_refusal();
            assert_eq!(refusal.code, RefusalCode::Tls);
            assert!(refusal.text.contains(text), "{refusal}");
            assert!(!dialer.on(0, |links| links.is_up(NodeId(2))));
        }
        let refusals = || b.counters().iter().map(|counters| counters.link_refusals.get()).sum();
        wait_until(
            || {
                let count: u64 = refusals();
                count >= 2
            },
            || "not counted".to_owned(),
        );
        let d = node(driver, 4, 1, Some(authority.node()));
        d.dial(2, b.address);
        d.wait_for_up(2);
    }
}

#[test]
fn plain_and_tls_refuse_each_other_with_a_text_on_both_sides() {
    let authority = Authority::new();
    for driver in drivers() {
        let (a, b) = (node(driver, 1, 1, None), node(driver, 2, 2, Some(authority.node())));
        a.dial(2, b.address);
        b.dial(1, a.address);
        let refusal = a.wait_for_refusal();
        assert_eq!((refusal.code, refusal.text.as_str()), (RefusalCode::Tls, OTHER_IS_TLS));
        let refusal = b.wait_for_refusal();
        assert_eq!(refusal.code, RefusalCode::Tls);
        assert!(refusal.text.ends_with(OTHER_IS_PLAIN), "{refusal}");
        let at = b.address.to_string();
        let answer = a.wait_on(0, move |links| links.control_at(at, Bytes::from_static(b"x")));
        assert!(matches!(answer, Err(LinkError::Refused(_))), "{answer:?}");
        let at = a.address.to_string();
        let answer = b.wait_on(0, move |links| links.control_at(at, Bytes::from_static(b"x")));
        assert!(matches!(answer, Err(LinkError::Refused(_))), "{answer:?}");
        for (node, other) in [(&a, 2), (&b, 1)] {
            assert!(!node.on(0, move |links| links.is_up(NodeId(other))));
            assert_eq!(node.counters()[0].links_accepted.get(), 0);
        }
    }
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Dials as a member with TLS, up to the welcome.
fn enter(authority: &Authority, address: SocketAddr, hello: &Hello) -> Stream {
    let pair = authority.pair(&["127.0.0.1"]);
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap(),
        )
        .unwrap();
    let name = ServerName::from(address.ip());
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = connect(address);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    say(&mut stream, &Frame::Hello(hello.encode().into()));
    let mut reader = FrameReader::new(1 << 24);
    assert!(matches!(hear(&mut stream, &mut reader), Some(Frame::Challenge(_))));
    say(&mut stream, &Frame::Proof(Bytes::new()));
    assert_eq!(hear(&mut stream, &mut reader), Some(Frame::Welcome));
    stream
}

fn say(stream: &mut Stream, frame: &Frame) {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    stream.write_all(&bytes).unwrap();
}

/// The next frame; `None`: the link was closed.
fn hear(stream: &mut Stream, reader: &mut FrameReader) -> Option<Frame> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(frame) = reader.next().unwrap() {
            return Some(frame);
        }
        match stream.read(&mut buffer) {
            Ok(0) => return None,
            Ok(size) => reader.push(&buffer[..size]),
            Err(error) => {
                let is_over = [io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof];
                assert!(is_over.contains(&error.kind()), "{error}");
                return None;
            }
        }
    }
}

#[test]
fn garbage_after_the_handshake_closes_that_link_only() {
    let authority = Authority::new();
    for driver in drivers() {
        let mut plan = Plan::new(driver, 1, 1);
        plan.settings.tls = Some(authority.node());
        plan.settings.frame_size_max = 1 << 20;
        let a = plan.start();
        let b = node(driver, 3, 1, Some(authority.node()));
        b.dial(1, a.address);
        b.wait_for_up(1);
        let accepted = |count| {
            let counter = &a.counters()[0].links_accepted;
            wait_until(|| counter.get() == count, || format!("{} links", counter.get()));
        };
        // Garbage instead of a record, in a record that was sealed with another key, and as a
        // frame's length under a good seal.
        let garbage: [&[u8]; 2] =
            [&[0xAA; 64], &[[0x17, 3, 3, 0, 32].as_slice(), &[7; 32]].concat()];
        for bytes in garbage {
            let mut stream = enter(&authority, a.address, &hello(2, 5));
            accepted(2);
            stream.sock.write_all(bytes).unwrap();
            assert_eq!(hear(&mut stream, &mut FrameReader::new(1 << 24)), None);
            accepted(1);
        }
        let mut stream = enter(&authority, a.address, &hello(2, 5));
        say(&mut stream, &Frame::Ping(5));
        let mut reader = FrameReader::new(1 << 24);
        assert_eq!(hear(&mut stream, &mut reader), Some(Frame::Pong(5)));
        stream.write_all(&((1 << 20) + 1_u32).to_le_bytes()).unwrap();
        assert_eq!(hear(&mut stream, &mut reader), None);
        accepted(1);
        assert_eq!(b.on(0, |links| links.status()[0].resets), 0);
        assert!(b.on(0, |links| links.is_up(NodeId(1))));
    }
}

/// A shard that reads nothing for a while: what waits for it is bounded.
#[test]
fn a_peer_that_does_not_read_costs_its_own_bundle() {
    let authority = Authority::new();
    for driver in drivers() {
        let mut plan = Plan::new(driver, 1, 1);
        plan.settings.tls = Some(authority.node());
        plan.settings.timeout_ms = 60_000;
        plan.settings.output_size_max = 8 << 20;
        let a = plan.start();
        let b = node(driver, 2, 1, Some(authority.node()));
        let c = node(driver, 3, 1, Some(authority.node()));
        a.dial(2, b.address);
        a.wait_for_up(2);
        a.dial(3, c.address);
        a.wait_for_up(3);
        b.post(0, |_| pause(2_000));
        let place = Place::Shard(ShardId(0));
        let mut sent = 0;
        while a.on(0, move |links| {
            let fill = |out: &mut Vec<u8>| out.resize(out.len() + (1 << 20), 5);
            links.send(NodeId(2), place, fill).is_ok()
        }) {
            sent += 1;
            assert!(sent < 100, "no bound");
            assert!(a.on(0, |links| links.status()[0].queue_size) <= 9 << 20);
        }
        assert!(sent >= 8);
        a.wait_for_peer(2, |state| state == PeerState::Down);
        assert!(a.on(0, |links| links.is_up(NodeId(3))));
        a.wait_for_up(2);
    }
}

#[test]
fn a_handshake_that_stalls_is_over_in_time() {
    let authority = Authority::new();
    for driver in drivers() {
        let mut plan = Plan::new(driver, 1, 2);
        plan.settings.tls = Some(authority.node());
        plan.settings.handshake_ms = 300;
        let a = plan.start();
        for begin in [&b""[..], &[0x16], &[0x16, 3, 1, 2, 0], &[0x16, 3, 1, 2, 0, 1, 0, 1, 252]] {
            let mut stream = connect(a.address);
            stream.write_all(begin).unwrap();
            assert!(is_closed(&mut stream));
        }
        let b = node(driver, 2, 1, Some(authority.node()));
        b.dial(1, a.address);
        b.wait_for_up(1);
    }
}

#[test]
fn files_that_are_of_no_use_are_named() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (pair, second) = (authority.pair(&["a"]), other.pair(&["b"]));
    let ca = authority.0.pem();
    let (certificate, key) = (pair.certificate.as_str(), pair.key.as_str());
    let cut = &certificate[..certificate.len() / 2];
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (certificate, key, ca, texts) in [
        ("", key, ca.as_str(), ["node.crt", "certificate"]),
        (cut, key, &ca, ["node.crt", "END line"]),
        (certificate, certificate, &ca, ["node.key", "private key"]),
        (certificate, &second.key, &ca, ["node.crt and node.key", "keys"]),
        (broken, key, &ca, ["node.crt", "certificate"]),
        (certificate, key, "hello", ["ca.crt", "certificate"]),
        (certificate, key, broken, ["ca.crt", "certificate"]),
    ] {
        let error = tls(certificate, key, ca).unwrap_err().to_string();
        assert!(texts.iter().all(|text| error.contains(text)), "{error}");
        println!("{error}");
    }
    assert!(pair.tls(&authority).is_ok());
}
