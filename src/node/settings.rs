//! From the configuration to what each crate wants to know.

use std::time::Duration;

use jindou_api::{Addresses, ApiSettings, LoginSettings, ManagerUser, Secret, Version};
use jindou_core::{entry::DedupeWindow, id::NodeId, settings::Settings};
use jindou_net::{DriverChoice, HttpSettings, NetSettings};

use super::webhook::Wanted;
use crate::config::{self, Config, Driver, Mode};

/// A client or back end has an answer within this time, if only that nobody knows.
const REQUEST_MS_MAX: u64 = 5_000;

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The shards' share of the threads' settings.
pub(super) fn shard_count(config: &Config) -> u16 {
    u16::try_from(config.runtime.shards).unwrap_or(1).clamp(1, 1024)
}

pub(super) fn core(config: &Config) -> Settings {
    let (limits, admission) = (&config.limits, &config.admission);
    let token = admission.manager_token.as_ref().map_or("", |secret| secret.reveal());
    let retry = &config.messaging;
    let Wanted { tells, status } = Wanted::new(&config.outside);
    Settings {
        node: NodeId(config.cluster.node_id.into()),
        shard_count: shard_count(config),
        slot_count: config.cluster.slot_count,
        token_auth: admission.token_auth,
        manager_uid: admission.manager_uid.as_str().into(),
        manager_token: token.into(),
        visitor_suffix: admission.visitors_suffix.as_str().into(),
        encryption_off: !admission.encryption,
        json_off: !admission.json_rpc,
        person_allow_off: !admission.person_allow_list,
        trusted_proxies: admission.trusted_proxies.clone(),
        idle_ms: ms(admission.idle_time),
        connect_ms: ms(limits.connect_deadline),
        auth_ms: ms(limits.auth_deadline),
        retry_ms: ms(retry.retry_interval),
        retry_scan_ms: ms(retry.retry_scan_interval),
        retry_count_max: u8::try_from(retry.retry_max).unwrap_or(u8::MAX),
        request_ms: ms(config.cluster.request_timeout).min(REQUEST_MS_MAX),
        dedupe_window: DedupeWindow {
            count_max: u64::try_from(config.dedupe.count_max).unwrap_or(u64::MAX),
            ms: ms(config.dedupe.time_max),
        },
        accumulator_size_max: limits.accumulator_max,
        entry_size_target: config.batching.size_max,
        cache_size_max: limits.cache_max,
        state_queue_size_max: limits.state_queue_max,
        sends_per_second_max: limits.send_rate_max.unwrap_or(0),
        sessions_per_user_max: limits.connection_per_user_max,
        uid_size_max: limits.uid_max,
        channel_id_size_max: limits.channel_id_max,
        tells,
        tells_status: status,
        notices_size_max: config.outside.webhook_outbox_max / u64::from(config.cluster.slot_count),
        has_datasource: config.outside.datasource.is_some(),
        notice_ms_max: i64::try_from(ms(config.outside.webhook_time_max)).unwrap_or(i64::MAX),
        ..Settings::default()
    }
}

pub(super) fn net(config: &Config) -> NetSettings {
    let limits = &config.limits;
    NetSettings {
        output_size_max: limits.connection_output_max,
        output_total_size_max: limits.output_total_max / usize::from(shard_count(config)),
        drain_ms: ms(limits.drain_time_max),
        ..NetSettings::default()
    }
}

pub(super) fn http(config: &Config) -> HttpSettings {
    let body_size_max = config.limits.http_body_max;
    let default = HttpSettings::default();
    // A body that is allowed must fit in.
    let body_total_size_max = default.body_total_size_max.max(body_size_max);
    HttpSettings { body_size_max, body_total_size_max, ..default }
}

pub(super) fn driver(config: &Config) -> DriverChoice {
    match config.runtime.driver {
        Driver::Auto => DriverChoice::Auto,
        Driver::IoUring => DriverChoice::IoUring,
        Driver::Epoll => DriverChoice::Epoll,
    }
}

pub(super) fn api(config: &Config) -> ApiSettings {
    let (admission, route) = (&config.admission, &config.route);
    ApiSettings {
        node: NodeId(config.cluster.node_id.into()),
        manager_token: admission
            .manager_token
            .as_ref()
            .map_or_else(String::new, |secret| secret.reveal().to_owned()),
        manager_uid: admission.manager_uid.clone(),
        manager_on: config.listen.manager.is_some(),
        addresses: Addresses {
            tcp: route.tcp.clone(),
            ws: route.ws.clone(),
            wss: route.wss.clone(),
            manager: route.manager.clone(),
            api_url: route.api.clone(),
            intranet_tcp: route.intranet_tcp.clone(),
        },
        version: Version::default(),
        conversation_count_max: config.messaging.conversation_max,
        command_sync_off: !config.admission.cmd_message_sync,
        uid_size_max: config.limits.uid_max,
        id_size_max: config.limits.channel_id_max,
        uids_per_request_max: config.limits.members_per_request_max,
        prometheus_on: config.outside.prometheus.is_some(),
        loki_on: config.outside.loki.is_some(),
        stress_on: admission.stress,
        trace_on: config.logging.trace,
        profiling_on: admission.profiling,
        release: config.mode == Mode::Release,
        login: login(config),
        ..ApiSettings::default()
    }
}

fn login(config: &Config) -> LoginSettings {
    let secret = |secret: &config::Secret| Secret::new(secret.reveal().to_owned());
    let users = config.manager_users.iter().map(|user| ManagerUser {
        name: user.name.clone(),
        password: secret(&user.password),
        rights: user.rights.clone(),
    });
    LoginSettings {
        users: users.collect(),
        key: config.jwt.secret.as_ref().map(secret),
        expire_s: i64::try_from(config.jwt.expire.as_secs()).unwrap_or(i64::MAX),
        issuer: config.jwt.issuer.clone(),
        trusted_proxies: config.admission.trusted_proxies.clone(),
        ..LoginSettings::default()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::config::tests::config;

    /// Every setting that has a reader, set to what is not its default.
    const FILE: &str = "
tokenAuthOn: true
managerUID: boss
managerToken: key
disableEncryption: true
disableJSONRPC: true
whitelistOffOfPerson: false
connIdleTime: 9s
trustedProxies: [9.0.0.0/8]
driver: epoll
shards: 4
cluster: {nodeId: 7, slotCount: 32, reqTimeout: 3s}
conversation: {userMaxCount: 77}
disableCMDMessageSync: true
messageRetry: {interval: 11s, scanInterval: 12s, maxCount: 13}
customerService: {visitorsSuffix: _v}
trace: {prometheusApiUrl: 'http://p'}
logger: {traceOn: true, loki: {url: 'http://l'}}
manager: {on: false}
mode: release
pprofOn: true
auth: {users: ['op:pw:[slotMigrate:w]']}
jwt: {secret: hush, expire: 1h, issuer: me}
limits:
  connectionOutputMax: 1MiB
  outputTotalMax: 64MiB
  httpBodyMax: 1GiB
  connectionPerUserMax: 3
  connectDeadline: 1s
  authDeadline: 5s
  sendRateMax: 20
  accumulatorMax: 2MiB
  stateQueueMax: 8MiB
  cacheMax: 16MiB
  dedupeCountMax: 100
  dedupeTimeMax: 2m
  uidMax: 100
  channelIdMax: 200
  membersPerRequestMax: 10
  drainTimeMax: 2s
batch: {sizeMax: 32KiB}
";

    #[test]
    fn the_rules_get_what_was_written() {
        let core = core(&config(FILE, &[]));
        assert_eq!((core.node, core.shard_count, core.slot_count), (NodeId(7), 4, 32));
        assert!(core.token_auth && core.encryption_off && core.json_off && !core.person_allow_off);
        let names = [&core.manager_uid, &core.manager_token, &core.visitor_suffix];
        assert_eq!(names.map(|name| &**name), ["boss", "key", "_v"]);
        assert!(core.trusted_proxies.contains(Ipv4Addr::new(9, 1, 1, 1).into()));
        assert!(!core.trusted_proxies.contains(Ipv4Addr::LOCALHOST.into()));
        let times = [core.idle_ms, core.connect_ms, core.auth_ms, core.request_ms];
        assert_eq!(times, [9_000, 1_000, 5_000, 3_000]);
        assert_eq!((core.retry_ms, core.retry_scan_ms, core.retry_count_max), (11_000, 12_000, 13));
        assert_eq!(core.dedupe_window, DedupeWindow { count_max: 100, ms: 120_000 });
        assert_eq!((core.accumulator_size_max, core.entry_size_target), (2 << 20, 32 << 10));
        assert_eq!((core.cache_size_max, core.state_queue_size_max), (16 << 20, 8 << 20));
        assert_eq!((core.sends_per_second_max, core.sessions_per_user_max), (20, 3));
        assert_eq!((core.uid_size_max, core.channel_id_size_max), (100, 200));
    }

    #[test]
    fn sockets_and_routes_get_what_was_written() {
        let config = config(FILE, &[]);
        let (net, http, api) = (net(&config), http(&config), api(&config));
        assert_eq!((net.output_size_max, net.output_total_size_max), (1 << 20, 16 << 20));
        assert_eq!(net.drain_ms, 2_000);
        assert_eq!((http.body_size_max, http.body_total_size_max), (1 << 30, 1 << 30));
        assert!(matches!(driver(&config), DriverChoice::Epoll));
        assert_eq!((api.node, api.manager_uid.as_str()), (NodeId(7), "boss"));
        assert_eq!((api.manager_token.as_str(), api.manager_on), ("key", false));
        assert_eq!((api.uid_size_max, api.id_size_max), (100, 200));
        assert_eq!((api.uids_per_request_max, api.conversation_count_max), (10, 77));
        assert!(api.command_sync_off);
        assert!(api.prometheus_on && api.loki_on && api.trace_on && !api.stress_on);
        assert!(api.profiling_on && api.release);
        let login = &api.login;
        assert_eq!((login.expire_s, login.issuer.as_str()), (3_600, "me"));
        assert!(login.users.iter().all(|user| user.name == "op" && user.may("slotMigrate", 'w')));
        assert!(login.key.is_some() && !format!("{api:?}").contains("hush"));
        assert!(login.trusted_proxies.contains(Ipv4Addr::new(9, 1, 1, 1).into()));
    }
}
