//! From the configuration to what each crate wants to know.

use std::time::Duration;

use jindou_api::{Addresses, ApiSettings, Version};
use jindou_core::{id::NodeId, settings::Settings};
use jindou_net::{DriverChoice, HttpSettings, NetSettings};

use crate::config::{Config, Driver};

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
        idle_ms: ms(admission.idle_time),
        connect_ms: ms(limits.connect_deadline),
        auth_ms: ms(limits.auth_deadline),
        retry_ms: ms(retry.retry_interval),
        retry_scan_ms: ms(retry.retry_scan_interval),
        retry_count_max: u8::try_from(retry.retry_max).unwrap_or(u8::MAX),
        request_ms: ms(config.cluster.request_timeout),
        dedupe_count_max: config.dedupe.count_max,
        dedupe_ms: i64::try_from(config.dedupe.time_max.as_millis()).unwrap_or(i64::MAX),
        accumulator_size_max: limits.accumulator_max,
        entry_size_target: config.batching.size_max,
        cache_size_max: limits.cache_max,
        state_queue_size_max: limits.state_queue_max,
        sends_per_second_max: limits.send_rate_max.unwrap_or(0),
        uid_size_max: limits.uid_max,
        channel_id_size_max: limits.channel_id_max,
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
    HttpSettings { body_size_max: config.limits.http_body_max, ..HttpSettings::default() }
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
        uid_size_max: config.limits.uid_max,
        id_size_max: config.limits.channel_id_max,
        stress_on: admission.stress,
        trace_on: config.logging.trace,
        ..ApiSettings::default()
    }
}
