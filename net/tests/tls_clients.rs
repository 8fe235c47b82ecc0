//! Client connections with TLS on real sockets, on both drivers.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod common;

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{IDLE, Node, PATIENCE, Plan, drivers, echo, is_closed, wait_until, write};
use jindou_core::effect::{Event, Inbox, Now, Outbox, Stepped};
use jindou_net::{ClientTls, DriverKind, PemFile, TlsError};
use rcgen::{CertificateParams, CertifiedKey, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
    version::{TLS12, TLS13},
};

type Client = StreamOwned<ClientConnection, TcpStream>;

fn pair(name: &str) -> CertifiedKey<KeyPair> {
    let signing_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let cert = params.self_signed(&signing_key).unwrap();
    CertifiedKey { cert, signing_key }
}

fn pem<'a>(name: &'a str, text: &'a str) -> PemFile<'a> {
    PemFile { name, bytes: text.as_bytes() }
}

fn tls(pair: &CertifiedKey<KeyPair>) -> ClientTls {
    let (chain, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    ClientTls::new(pem("a.crt", &chain), pem("a.key", &key)).unwrap()
}

fn plan(driver: DriverKind, pair: &CertifiedKey<KeyPair>) -> Plan {
    Plan { tls: Some(tls(pair)), ..Plan::new(driver, 1) }
}

fn nodes(pair: &CertifiedKey<KeyPair>) -> Vec<Node> {
    drivers().into_iter().map(|driver| plan(driver, pair).start(|_| echo)).collect()
}

/// A client that believes this certificate only, for the name `localhost`.
fn client(
    node: &Node,
    trusted: &CertificateDer<'_>,
    version: &'static SupportedProtocolVersion,
) -> Client {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone().into_owned()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Browsers say so on wss; it is no reason to refuse them.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(connection, node.connect())
}

fn check_echo(client: &mut Client, bytes: &[u8]) {
    client.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    client.read_exact(&mut back).unwrap();
    assert!(back == bytes);
}

#[test]
fn clients_of_both_versions_get_their_bytes_back() {
    let pair = pair("localhost");
    for node in nodes(&pair) {
        for version in [&TLS12, &TLS13] {
            let mut clients: Vec<_> =
                (0..20).map(|_| client(&node, pair.cert.der(), version)).collect();
            for round in 0..5 {
                for (place, client) in clients.iter_mut().enumerate() {
                    check_echo(client, format!("{round}:{place};").repeat(place + 1).as_bytes());
                }
            }
            for client in &clients {
                assert_eq!(client.conn.protocol_version(), Some(version.version));
                assert_eq!(client.conn.alpn_protocol(), None);
            }
            drop(clients);
            node.wait_for(0, |counters| counters.open.get());
        }
    }
}

#[test]
fn large_messages_come_back_whole_and_leave_in_few_records() {
    let pair = pair("localhost");
    for node in nodes(&pair) {
        let mut client = client(&node, pair.cert.der(), &TLS13);
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 4]).collect();
        for piece in bytes.chunks(100_000) {
            check_echo(&mut client, piece);
        }
        let sent = node.sum(|counters| counters.bytes_out.get());
        assert!(sent < 1_100_000, "{sent} bytes for a million");
        wait_until(
            || node.sum(|counters| counters.output_size.get()) == 0,
            || "output is counted that has left".to_owned(),
        );
    }
}

#[test]
fn a_handshake_may_come_byte_by_byte() {
    let pair = pair("localhost");
    for node in nodes(&pair) {
        let mut client = client(&node, pair.cert.der(), &TLS13);
        while client.conn.is_handshaking() {
            let mut out = Vec::new();
            while client.conn.wants_write() {
                client.conn.write_tls(&mut out).unwrap();
            }
            for byte in out {
                client.sock.write_all(&[byte]).unwrap();
            }
            if client.conn.is_handshaking() {
                client.conn.read_tls(&mut client.sock).unwrap();
                client.conn.process_new_packets().unwrap();
            }
        }
        check_echo(&mut client, b"hello");
    }
}

/// Counts what the machine hears of connections.
fn counting(
    opened: &Arc<AtomicUsize>,
    closed: &Arc<AtomicUsize>,
) -> impl FnMut(Now, &mut Inbox, &mut Outbox) -> Stepped + use<> {
    let (opened, closed) = (opened.clone(), closed.clone());
    move |_, inbox, outbox| {
        for event in inbox.events.drain(..) {
            match event {
                Event::Opened { .. } => {
                    opened.fetch_add(1, Ordering::Relaxed);
                }
                Event::Closed { .. } => {
                    closed.fetch_add(1, Ordering::Relaxed);
                }
                Event::Bytes { conn, range } => write(outbox, conn, &inbox.bytes[range]),
                _ => {}
            }
        }
        IDLE
    }
}

#[test]
fn what_is_no_tls_ends_and_the_machine_never_hears_of_it() {
    let pair = pair("localhost");
    for driver in drivers() {
        let (opened, closed) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let node = plan(driver, &pair).start({
            let (opened, closed) = (opened.clone(), closed.clone());
            move |_| counting(&opened, &closed)
        });
        let garbage: [&[u8]; 4] = [
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x00\x05hello",
            b"\x16\x03\x01\xff\xff",
            &[0x16; 100],
        ];
        for bytes in garbage {
            let mut stream = node.connect();
            stream.write_all(bytes).unwrap();
            // An alert, then the end.
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            assert!(rest.is_empty() || rest[0] == 0x15, "{rest:?}");
        }
        // One who goes in the middle, and one who does not believe.
        let mut stream = node.connect();
        stream.write_all(b"\x16\x03\x01\x02").unwrap();
        drop(stream);
        let stranger = self::pair("localhost");
        let mut client = client(&node, stranger.cert.der(), &TLS13);
        client.write_all(b"x").unwrap_err();
        drop(client);
        node.wait_for(0, |counters| counters.open.get());
        assert_eq!(opened.load(Ordering::Relaxed), 0);
        assert_eq!(closed.load(Ordering::Relaxed), 0);

        let mut client = self::client(&node, pair.cert.der(), &TLS12);
        check_echo(&mut client, b"hello");
        assert_eq!(opened.load(Ordering::Relaxed), 1);
        // What is no record ends an open connection, and the machine hears so once.
        client.sock.write_all(b"\x17\x03\x03\x00\x10aaaaaaaaaaaaaaaa").unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap_err();
        drop(client);
        node.wait_for(0, |counters| counters.open.get());
        assert_eq!(closed.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn a_silent_handshake_has_a_time_and_many_of_them_keep_no_place_from_a_quick_one() {
    let pair = pair("localhost");
    for driver in drivers() {
        let mut plan = plan(driver, &pair);
        plan.net.handshake_count_max = 20;
        let node = plan.start(|_| echo);
        let mut silent: Vec<TcpStream> = (0..100).map(|_| node.connect()).collect();
        for stream in &mut silent {
            // The oldest are cut already.
            let _ = stream.write_all(b"\x16\x03\x01");
        }
        node.wait_for(80, |counters| counters.handshakes_cut.get());
        assert!(is_closed(&mut silent[0]));
        let mut client = client(&node, pair.cert.der(), &TLS13);
        check_echo(&mut client, b"hello");
        node.wait_for(20, |counters| counters.open.get());
        drop(silent);
        node.wait_for(1, |counters| counters.open.get());
        check_echo(&mut client, b"still here");

        let mut plan = self::plan(driver, &pair);
        plan.net.handshake_ms = 300;
        let node = plan.start(|_| echo);
        let mut client = self::client(&node, pair.cert.der(), &TLS13);
        check_echo(&mut client, b"hello");
        let (begin, mut slow) = (Instant::now(), node.connect());
        assert!(is_closed(&mut slow));
        assert!((Duration::from_millis(290)..PATIENCE).contains(&begin.elapsed()));
        assert_eq!(node.sum(|counters| counters.handshakes_cut.get()), 1);
        check_echo(&mut client, b"its time was for the handshake only");
    }
}

#[test]
fn both_ends_say_that_nothing_follows() {
    let pair = pair("localhost");
    for node in nodes(&pair) {
        let mut client = client(&node, pair.cert.der(), &TLS13);
        check_echo(&mut client, b"hello");
        client.write_all(b"last words").unwrap();
        client.conn.send_close_notify();
        client.flush().unwrap();
        // The answer to what came before, and an end that is no truncation.
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"last words");
        drop(client);
        node.wait_for(0, |counters| counters.open.get());
    }
    for mut node in nodes(&pair) {
        let mut client = client(&node, pair.cert.der(), &TLS12);
        check_echo(&mut client, b"hello");
        let shards = node.shards.take().unwrap();
        shards.stop().drain();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
        shards.wait().unwrap();
    }
}

#[test]
fn a_slow_reader_costs_only_itself() {
    let pair = pair("localhost");
    for driver in drivers() {
        let mut plan = plan(driver, &pair);
        plan.net.output_size_max = 1 << 20;
        let node = plan.start(|_| echo);
        let mut slow = client(&node, pair.cert.der(), &TLS13);
        let mut other = client(&node, pair.cert.der(), &TLS13);
        check_echo(&mut slow, b"hello");
        slow.sock.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        let begin = Instant::now();
        while slow.write_all(&[7; 64 << 10]).is_ok() {
            assert!(begin.elapsed() < PATIENCE, "nothing stops a client that does not read");
            check_echo(&mut other, b"quick");
        }
        node.wait_for(1, |counters| counters.closed_slow.get());
        check_echo(&mut other, b"still here");
    }
}

#[test]
fn a_certificate_is_replaced_while_connections_are_open() {
    let (old, new) = (pair("localhost"), pair("localhost"));
    for driver in drivers() {
        let plan = plan(driver, &old);
        let tls = plan.tls.clone().unwrap();
        let node = plan.start(|_| echo);
        let mut before = client(&node, old.cert.der(), &TLS13);
        check_echo(&mut before, b"hello");
        let (chain, key) = (new.cert.pem(), new.signing_key.serialize_pem());
        let refused = tls.replace(pem("new.crt", "nothing"), pem("new.key", &key));
        assert!(matches!(refused, Err(TlsError::Missing { .. })), "{refused:?}");
        check_echo(&mut client(&node, old.cert.der(), &TLS13), b"the old one still");
        tls.replace(pem("new.crt", &chain), pem("new.key", &key)).unwrap();
        check_echo(&mut client(&node, new.cert.der(), &TLS13), b"the new one");
        client(&node, old.cert.der(), &TLS13).write_all(b"x").unwrap_err();
        check_echo(&mut before, b"keeps its session");
    }
}

#[test]
fn files_that_are_of_no_use_are_named() {
    let (one, other) = (pair("localhost"), pair("localhost"));
    let (chain, key) = (one.cert.pem(), one.signing_key.serialize_pem());
    let error = |chain: &str, key: &str| {
        ClientTls::new(pem("a.crt", chain), pem("a.key", key)).unwrap_err().to_string()
    };
    assert_eq!(error("", &key), "a.crt holds no certificate in PEM form");
    assert_eq!(error(&chain, &chain), "a.key holds no private key in PEM form");
    let strange = error(&chain, &other.signing_key.serialize_pem());
    assert!(strange.starts_with("a.crt and a.key: "), "{strange}");
    let cut = error(&chain[..chain.len() / 2], &key);
    assert!(cut.starts_with("a.crt: it has a BEGIN line without"), "{cut}");
}
