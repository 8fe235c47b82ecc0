//! What settings mean, end to end from file and environment text.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::time::Duration;

use jindou_api::Right;

use super::*;

fn machine() -> Machine {
    Machine {
        home: Some("/home/u".into()),
        cores: 2,
        addresses: vec![("eth0".to_owned(), Ipv4Addr::new(10, 1, 2, 3))],
        external_ip: None,
    }
}

fn written(file: &str, env: &[(&str, &str)]) -> Written {
    let pairs = tree::yaml(file).unwrap();
    let env = env.iter().map(|(n, t)| (OsString::from(n), OsString::from(t)));
    Written::join(Some((Path::new("wk.yaml"), pairs)), env, None)
}

pub(crate) fn config(file: &str, env: &[(&str, &str)]) -> Config {
    Config::new(&written(file, env), &machine()).unwrap()
}

fn refused(file: &str, env: &[(&str, &str)]) -> String {
    Config::new(&written(file, env), &machine()).unwrap_err().to_string()
}

fn said(config: &Config) -> Vec<String> {
    config.notices.iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_written_gives_v2s_defaults() {
    let c = config("", &[]);
    assert_eq!(said(&c), Vec::<String>::new());
    assert_eq!(c.root_dir, Path::new("/home/u/wukongim"));
    assert_eq!(c.data_dir, Path::new("/home/u/wukongim/data"));
    let ports = [&c.listen.tcp, &c.listen.ws, &c.listen.http, &c.listen.cluster].map(|l| l.port);
    assert_eq!(ports, [5100, 5200, 5001, 11110]);
    assert_eq!(c.listen.manager.as_ref().unwrap().port, 5300);
    assert_eq!(c.listen.demo.as_ref().unwrap().port, 5172);
    assert_eq!(c.listen.wss, None);
    assert_eq!((c.cluster.node_id, c.cluster.slot_count), (1001, 64));
    assert_eq!(c.jwt.secret, None);
    assert_eq!(c.jwt.expire, Duration::from_secs(30 * 86_400));
    assert_eq!(c.manager_users[0].name, "guest");
    let reads = Right { resource: "*".to_owned(), actions: "r".to_owned() };
    assert_eq!(c.manager_users[0].rights, [reads]);
    assert_eq!(
        c.runtime,
        Runtime { driver: Driver::Auto, shards: 2, durability: Durability::Fsync }
    );
    assert_eq!(c.logging.level, Level::Debug);
    assert!(!c.admission.token_auth && c.admission.encryption && !c.admission.person_allow_list);
}

#[test]
fn the_nine_variables_of_the_deployment_guide_work() {
    let c = config(
        "",
        &[
            ("WK_MODE", "release"),
            ("WK_CLUSTER_NODEID", "1"),
            ("WK_INTRANET_TCPADDR", "10.206.0.10:5100"),
            ("WK_CLUSTER_APIURL", "http://10.206.0.10:5001/"),
            ("WK_CLUSTER_SERVERADDR", "10.206.0.10:11110"),
            ("WK_EXTERNAL_WSADDR", "ws://1.2.3.4:15200"),
            ("WK_EXTERNAL_TCPADDR", "1.2.3.4:15100"),
            ("WK_TRACE_PROMETHEUSAPIURL", "http://10.206.0.2:9090"),
            ("WK_CLUSTER_INITNODES", "1@10.206.0.10  2@10.206.0.12\t3@10.206.0.5"),
        ],
    );
    assert_eq!(
        said(&c),
        [
            "trace.prometheusApiUrl from WK_TRACE_PROMETHEUSAPIURL is not served by this version: it \
             has no effect"
        ]
    );
    assert_eq!((c.mode, c.logging.level), (Mode::Release, Level::Info));
    let nodes: Vec<_> = c.cluster.init_nodes.iter().map(|m| (m.id, m.addr.as_str())).collect();
    assert_eq!(
        nodes,
        [(1, "10.206.0.10:11110"), (2, "10.206.0.12:11110"), (3, "10.206.0.5:11110")]
    );
    assert_eq!(c.cluster.api_url.as_deref(), Some("http://10.206.0.10:5001"));
    assert_eq!(c.route.ws, "ws://1.2.3.4:15200");
    assert_eq!(c.route.tcp, "1.2.3.4:15100");
    assert_eq!(c.route.intranet_tcp, "10.206.0.10:5100");
    assert_eq!(c.outside.prometheus.as_deref(), Some("http://10.206.0.2:9090"));
}

#[test]
fn zero_means_unset_for_numbers_texts_and_durations_but_not_for_booleans() {
    let c = config(
        "messageRetry: {maxCount: 0, interval: 0}\nmanagerUID: ''\nmanager: {on: false}\nwhitelistOffOfPerson: false",
        &[],
    );
    assert_eq!((c.messaging.retry_max, c.messaging.retry_interval), (5, Duration::from_secs(60)));
    assert_eq!(c.admission.manager_uid, "____manager");
    assert_eq!(c.listen.manager, None);
    assert!(c.admission.person_allow_list);
    assert_eq!(
        said(&c),
        [
            "messageRetry.interval = \"0\" from wk.yaml cannot be used (0 stands for unset); \"60s\" is used instead",
            "messageRetry.maxCount = \"0\" from wk.yaml cannot be used (0 stands for unset); \"5\" is used instead",
        ]
    );
}

#[test]
fn what_cannot_be_used_is_told_with_what_is_used() {
    let c = config(
        "tokenAuthOn: yes\nconnIdleTime: 60\nlogger: {level: 9}\nlimits: {uidMax: 1MiB}\nmode: production\naddr: [a]\njwt: {expire: soon}\nmanagerToken: [x]",
        &[],
    );
    assert!(!c.admission.token_auth);
    assert_eq!(c.admission.idle_time, Duration::from_secs(180));
    assert_eq!(c.limits.uid_max, 4 << 10);
    let said = said(&c);
    assert_eq!(said.len(), 8, "{said:#?}");
    assert!(
        said.iter().any(|s| s.contains("connIdleTime") && s.contains("nanoseconds")),
        "{said:#?}"
    );
    assert!(said.iter().any(|s| s.starts_with("managerToken = \"***\"")), "{said:#?}");
}

#[test]
fn days_and_bare_numbers_in_booleans_work() {
    let c = config(
        "jwt: {expire: 7d}\ntokenAuthOn: 2\nconversation: {on: 0}",
        &[("WK_TAG_EXPIRE", "1d")],
    );
    assert_eq!(c.jwt.expire, Duration::from_secs(7 * 86_400));
    assert_eq!(c.messaging.plan_expire, Duration::from_secs(86_400));
    assert!(c.admission.token_auth && !c.messaging.conversations);
    assert!(said(&c).iter().all(|s| s.contains("not served by this version")), "{:?}", said(&c));
    let c = config("", &[("WK_TOKENAUTHON", "2")]);
    assert!(!c.admission.token_auth);
    assert_eq!(said(&c).len(), 1);
}

#[test]
fn lists_are_split_at_blanks_or_taken_as_lists() {
    let a = config("webhook: {focusEvents: [msg.offline, msg.notify]}", &[]);
    let b = config("webhook: {focusEvents: msg.offline   msg.notify}", &[]);
    let c = config(
        "webhook: {focusEvents: [x]}",
        &[("WK_WEBHOOK_FOCUSEVENTS", " msg.offline\tmsg.notify ")],
    );
    for c in [a, b, c] {
        assert_eq!(c.outside.webhook_focus, ["msg.offline", "msg.notify"]);
    }
}

#[test]
fn node_numbers_roles_and_users_are_strict() {
    for id in ["0", "1024", "-1", "x"] {
        let text = refused("", &[("WK_CLUSTER_NODEID", id)]);
        assert!(text.contains("1 to 1023"), "{text}");
    }
    assert_eq!(config("cluster: {nodeId: 1023}", &[]).cluster.node_id, 1023);
    assert_eq!(config("cluster: {role: Proxy}", &[]).cluster.role, Role::Proxy);
    assert!(refused("cluster: {role: boss}", &[]).contains("replica or proxy"));
    let text = refused("", &[("WK_AUTH_USERS", "admin:hunter2")]);
    assert!(text.contains("item 1") && !text.contains("hunter2"), "{text}");
    for name in ["____manager", "____system"] {
        let text = refused("", &[("WK_AUTH_USERS", &format!("{name}:x:*"))]);
        assert!(text.contains("managerUID's or the system's"), "{text}");
    }
    let c = config("", &[("WK_AUTH_USERS", "admin:strong:* guest:guest:[*:r]")]);
    assert_eq!(c.manager_users.len(), 2);
    assert!(!c.show().contains("strong"));
}

#[test]
fn init_nodes_skip_what_v2_skips_and_say_so() {
    let c = config(
        "cluster:\n  nodeId: 2\n  initNodes: ['2@a', 'b', 'x@c', '3@tcp://d:1', '4@e:5@f', '2@g']",
        &[],
    );
    let nodes: Vec<_> = c.cluster.init_nodes.iter().map(|m| (m.id, m.addr.as_str())).collect();
    assert_eq!(nodes, [(2, "g:11110"), (3, "d:1"), (4, "e:5")]);
    assert_eq!(said(&c).len(), 3);
    for bad in ["1@a,2@b", "0@a", "1024@a"] {
        assert!(
            refused("", &[("WK_CLUSTER_INITNODES", bad)]).contains("cluster.initNodes"),
            "{bad}"
        );
    }
    assert_eq!(
        config("", &[("WK_CLUSTER_INITNODES", "1001@[::1]")]).cluster.init_nodes[0].addr,
        "[::1]:11110"
    );
    let c = config("", &[("WK_CLUSTER_INITNODES", "1@a"), ("WK_CLUSTER_SERVERADDR", "z:1")]);
    assert!(said(&c)[0].contains("does not list this node"));
    let c = config("", &[("WK_CLUSTER_INITNODES", "1001@a"), ("WK_CLUSTER_SERVERADDR", "z:1")]);
    assert!(said(&c)[0].contains("differs"));
}

#[test]
fn a_seed_is_one_text_or_the_first_of_a_list_and_anything_else_stops_the_start() {
    for file in [
        "cluster: {seed: '1@h:11110'}",
        "cluster:\n  seed:\n    - 1@h:11110",
        "cluster: {seed: '1@tcp://h:11110'}",
    ] {
        let seed = config(file, &[]).cluster.seed.unwrap();
        assert_eq!((seed.id, seed.addr.as_str()), (1, "h:11110"));
    }
    for file in [
        "cluster: {seed: 'h:1'}",
        "cluster: {seed: '1@h'}",
        "cluster: {seed: 'x@h:1'}",
        "cluster: {seed: [[1]]}",
        "cluster: {seed: '0@h:1'}",
    ] {
        assert!(refused(file, &[]).starts_with("cluster.seed"), "{file}");
    }
    assert_eq!(config("cluster: {seed: ''}", &[]).cluster.seed, None);
}

#[test]
fn nodes_speak_tls_with_all_three_files_or_none() {
    assert_eq!(config("", &[]).cluster.tls, None);
    let c = config(
        "cluster: {tls: {certFile: a.crt, keyFile: a.key}}",
        &[("WK_CLUSTER_TLS_CAFILE", "/ca.crt")],
    );
    let files = TlsFiles { cert: "a.crt".into(), key: "a.key".into(), ca: "/ca.crt".into() };
    assert_eq!(c.cluster.tls, Some(files));
    assert_eq!(said(&c), said(&config("", &[])));
    let error = refused("cluster: {tls: {certFile: a, caFile: c}}", &[]);
    assert!(error.contains("cluster.tls.keyFile is not"), "{error}");
    let error = refused("", &[("WK_CLUSTER_TLS_KEYFILE", "a")]);
    assert!(error.contains("cluster.tls.certFile is not"), "{error}");
}

#[test]
fn replica_counts_follow_the_nodes_unless_fixed() {
    assert_eq!(config("", &[]).cluster.replica_count, None);
    let c = config("cluster: {slotReplicaCount: 3, channelReplicaCount: 1}", &[]);
    assert_eq!(c.cluster.replica_count, Some(3));
}

#[test]
fn route_addresses_are_derived_from_ip_and_ports() {
    let c = config(
        "addr: tcp://0.0.0.0:6100\nwssAddr: wss://0.0.0.0:5210\nwssConfig: {certFile: c, keyFile: k}",
        &[],
    );
    assert_eq!(c.route.tcp, "10.1.2.3:6100");
    assert_eq!(c.route.ws, "ws://10.1.2.3:5200");
    assert_eq!(c.route.wss, "wss://10.1.2.3:5210");
    assert_eq!(c.route.api, "http://10.1.2.3:5001");
    assert_eq!(c.route.manager, "10.1.2.3:5300");
    assert_eq!(c.route.intranet_tcp, "");
    let c = config("external: {ip: 9.9.9.9, tcpAddr: 'ws://h:1'}", &[]);
    assert_eq!(
        (c.route.tcp.as_str(), c.route.ws.as_str(), c.route.wss.as_str()),
        ("h:1", "ws://9.9.9.9:5200", "")
    );
    let auto = Machine { external_ip: Some("7.7.7.7".to_owned()), ..machine() };
    let c = Config::new(&written("external: {autoGetExternalIP: true}", &[]), &auto).unwrap();
    assert_eq!(c.route.tcp, "7.7.7.7:5100");
}

#[test]
fn addresses_and_tls_files_are_strict() {
    assert!(refused("addr: nonsense", &[]).contains("addr"));
    assert!(refused("httpAddr: 'h:99999'", &[]).contains("httpAddr"));
    assert!(refused("wssAddr: ':5210'\nwssConfig: {certFile: c}", &[]).contains("keyFile"));
    assert!(said(&config("wssConfig: {certFile: c}", &[]))[0].contains("wssAddr is not set"));
    let homeless = Machine { home: None, ..machine() };
    assert!(Config::new(&written("", &[]), &homeless).is_err());
    assert!(Config::new(&written("rootDir: /d", &[]), &homeless).is_ok());
}

#[test]
fn a_relative_root_is_told() {
    let c = config("rootDir: ./wukongimdata", &[]);
    assert!(said(&c)[0].contains("not the volume"));
    assert_eq!(c.logging.dir, Path::new("./wukongimdata/logs"));
}

#[test]
fn shards_leave_a_core_to_the_lanes_from_four_on() {
    let shards = |cores| {
        let machine = Machine { cores, ..machine() };
        Config::new(&written("", &[]), &machine).unwrap().runtime.shards
    };
    assert_eq!([1, 2, 3, 4, 8].map(shards), [1, 2, 3, 3, 7]);
    assert_eq!(config("shards: 6", &[]).runtime.shards, 6);
}

#[test]
fn what_is_set_and_not_served_is_told_but_never_its_default() {
    let c = config(
        "webhook: {httpAddr: 'http://x', msgNotifyEventPushInterval: 500ms, focusEvents: []}\n\
         auth: {users: ['guest:guest:[*:r]']}\njwt: {secret: hush, expire: 720h, issuer: wukongim}\n\
         logger: {dir: logs, traceOn: false}\nplugin: {timeout: 1000ms, install: [a, b]}\n\
         agent: {webhook: {maxPushCount: 0}}",
        &[("WK_DATASOURCE_ADDR", "http://y"), ("WK_STRESS", "true"), ("WK_LOGGER_DIR", "")],
    );
    let told: Vec<String> = c
        .notices
        .iter()
        .filter(|n| matches!(n, Notice::NotServed { .. }))
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        told,
        ["stress from WK_STRESS", "plugin.install from wk.yaml",]
            .map(|what| format!("{what} is not served by this version: it has no effect"))
    );
    assert!(!format!("{told:?}").contains("hush"));
}

#[test]
fn open_doors_are_named() {
    let doors = config("", &[]).open_doors();
    assert!(doors.iter().any(|d| d.starts_with("managerToken is not set")));
    assert!(doors.iter().any(|d| d.starts_with("tokenAuthOn is false")));
    assert!(doors.iter().any(|d| d.starts_with("auth.users has guest with the password guest")));
    assert!(!doors.iter().any(|d| d.starts_with("jwt.secret")), "a random one is drawn");
    let known = config("jwt: {secret: secret_wukongim}\nmanager: {on: false}", &[]).open_doors();
    assert!(known.iter().any(|d| d.starts_with("jwt.secret is v2.2.5's published default")));
    assert!(!known.iter().any(|d| d.starts_with("auth.users")), "nobody can reach it");
    let closed = config("managerToken: t\ntokenAuthOn: true\nauth: {users: ['a:b:*']}", &[]);
    assert_eq!(closed.open_doors(), ["users whose uid ends in ___vstr connect without a token"]);
    let stressed = config("stress: true\ntokenAuthOn: true", &[]);
    assert!(stressed.admission.token_auth, "stress switches no check off");
}

#[test]
fn the_fingerprint_covers_what_a_cluster_must_agree_on() {
    let base = config("", &[]).fingerprint();
    assert_eq!(
        base,
        config("cluster: {nodeId: 7}\nlimits: {httpBodyMax: 64KiB}", &[]).fingerprint()
    );
    for file in ["cluster: {slotCount: 128}", "limits: {channelIdMax: 99}"] {
        assert_ne!(base, config(file, &[]).fingerprint(), "{file}");
    }
}

#[test]
fn secrets_are_never_shown_and_origins_are() {
    let c = config(
        "managerToken: hush1\njwt: {secret: hush2}\nauth: {users: ['a:hush3:*']}\nlogger: {loki: {password: hush4}}",
        &[("WK_ADDR", ":1")],
    );
    let shown = c.show();
    assert!(!shown.contains("hush"), "{shown}");
    assert!(!format!("{c:?}").contains("hush1"));
    for line in [
        "addr: \":1\"  # WK_ADDR",
        "managerToken: \"***\"  # wk.yaml",
        "  secret: \"***\"  # wk.yaml",
        "rootDir: /home/u/wukongim  # derived",
        "shards: 2  # derived",
        "  expire: 30d",
    ] {
        assert!(shown.lines().any(|l| l == line), "{line} is not in\n{shown}");
    }
    assert!(tree::yaml(&shown).is_ok());
}

#[test]
fn a_file_that_cannot_be_used_is_fatal_unless_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.yaml");
    let broken = dir.path().join("broken.yaml");
    std::fs::write(&broken, "a: [1").unwrap();
    let strange = dir.path().join("wk.conf");
    std::fs::write(&strange, "").unwrap();
    for path in [missing, broken, strange] {
        let mut sources = Sources { file: Some(path), ..Sources::default() };
        assert!(load(&sources).is_err());
        sources.ignore_missing = true;
        let config = load(&sources).unwrap();
        assert!(matches!(config.notices[0], Notice::NoFile(_)));
    }
}

/// The example file in the repository, as it must be.
#[test]
fn the_example_file_is_the_table_of_keys() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/wk.yaml");
    let file = std::fs::read_to_string(path).unwrap();
    assert!(file == example(), "deploy/wk.yaml is stale: write it with `jindou config --example`");
}

#[test]
fn the_example_file_says_the_defaults() {
    let example = example();
    assert_eq!(tree::yaml(&example), Ok(Vec::new()), "a copy of the example sets nothing");
    let uncommented: String = example
        .lines()
        .map(|line| {
            let bare = line.trim_start();
            match bare.strip_prefix('#') {
                Some(rest) if rest.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                    format!("{}{rest}\n", " ".repeat(line.len() - bare.len()))
                }
                _ => format!("{line}\n"),
            }
        })
        .collect();
    let set = config(&uncommented, &[]);
    let unset = config("", &[]);
    assert_eq!(said(&set), Vec::<String>::new());
    let strip = |c: &Config| {
        let lines: Vec<String> =
            c.show().lines().map(|l| l.split("  # ").next().unwrap().to_owned()).collect();
        lines
    };
    assert_eq!(strip(&set), strip(&unset));
    let live =
        keys::ALL.iter().filter(|k| matches!(k.effect, keys::Effect::Live | keys::Effect::Later));
    let live = live.count();
    assert_eq!(set.in_force.len(), live, "every key that is no dead letter is read");
}
