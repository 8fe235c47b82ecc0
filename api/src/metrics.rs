//! GET /metrics of the manager port: what Prometheus scrapes (operations.md §2.5). Shards keep
//! plain counters; only here they become text.
//!
//! v2's names are kept where the value is known, so that its dashboards go on working, with the
//! two labels that v2's exporter puts on each of them. Beside them stand ours, `jindou_*`, one
//! series per shard; of the cluster, one per other node or one for all shards.

mod cluster;

use http::{HeaderValue, StatusCode};
use jindou_core::request::Vars;
use prometheus::{
    Encoder as _, Opts, Registry, TextEncoder,
    core::{AtomicU64, GenericCounter, GenericGauge},
};

use crate::{
    api::Api,
    figures::ClusterFigures,
    http::HttpResponse,
    node::{Io, Node, Process},
    varz,
};

/// The text format that v2 answers with.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Whether a value only grows.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

use Kind::{Counter, Gauge};

/// v2's names of application, system, cluster and database, with their values as sums over shards.
type OfShards = fn(&Vars) -> u64;

const V2: &[(&str, Kind, OfShards, &str)] = &[
    ("app_conn_count_total", Gauge, |v| v.connections, "Open client connections."),
    ("app_online_user_count_total", Gauge, |v| v.online_users, "Users online."),
    ("app_online_device_count_total", Gauge, |v| v.sessions, "Devices online."),
    ("app_send_packet_count_total", Counter, |v| v.traffic.messages_in, "SENDs."),
    ("app_send_packet_bytes_total", Counter, |v| v.traffic.message_bytes_in, "Bytes of SENDs."),
    ("app_recv_packet_count_total", Counter, |v| v.traffic.messages_out, "RECVs."),
    ("app_recv_packet_bytes_total", Counter, |v| v.traffic.message_bytes_out, "Bytes of RECVs."),
    (
        "app_connack_packet_count_total",
        Counter,
        |v| v.connects.saturating_add(v.connects_refused),
        "CONNACKs.",
    ),
    ("app_conn_packet_count_total", Counter, |v| v.connect_frames, "CONNECTs."),
    ("app_sendack_packet_count_total", Counter, |v| v.sendacks, "SENDACKs."),
    ("app_recvack_packet_count_total", Counter, |v| v.recvacks, "RECVACKs."),
    ("app_ping_count_total", Counter, |v| v.pings, "PINGs."),
    ("app_ping_bytes_total", Counter, |v| v.pings, "Bytes of PINGs, one each."),
    ("app_pong_count_total", Counter, |v| v.pings, "PONGs."),
    ("app_pong_bytes_total", Counter, |v| v.pings, "Bytes of PONGs, one each."),
    ("system_extranet_incoming_bytes_total", Counter, |v| v.traffic.bytes_in, "Client bytes in."),
    ("system_extranet_outgoing_bytes_total", Counter, |v| v.traffic.bytes_out, "Client bytes out."),
    ("cluster_channel_active_count", Gauge, |v| v.channels_cached, "Channels in memory."),
    ("cluster_channel_propose_count_total", Counter, |v| v.proposals, "Entries proposed."),
    (
        "cluster_channel_propose_failed_count_total",
        Counter,
        |v| v.proposals_failed,
        "Entries that were not committed.",
    ),
    (
        "cluster_channel_propose_latency_under_500ms_total",
        Counter,
        |v| v.proposals_prompt,
        "Entries applied within 500 ms.",
    ),
    ("db_message_append_batch_count_total", Counter, |v| v.proposals, "Batches appended."),
];

/// Our names: one series per shard.
const OURS: &[(&str, Kind, OfShards, &str)] = &[
    ("jindou_connections", Gauge, |v| v.connections, "Open sockets."),
    ("jindou_sessions", Gauge, |v| v.sessions, "Connections past CONNECT."),
    ("jindou_online_users", Gauge, |v| v.online_users, "Users with a session, at their home."),
    ("jindou_messages_in_total", Counter, |v| v.traffic.messages_in, "SENDs."),
    ("jindou_messages_out_total", Counter, |v| v.traffic.messages_out, "RECVs."),
    ("jindou_message_bytes_in_total", Counter, |v| v.traffic.message_bytes_in, "Bytes of SENDs."),
    ("jindou_message_bytes_out_total", Counter, |v| v.traffic.message_bytes_out, "Bytes of RECVs."),
    ("jindou_frames_in_total", Counter, |v| v.traffic.frames_in, "Frames of any kind."),
    ("jindou_frames_out_total", Counter, |v| v.traffic.frames_out, "Frames of any kind."),
    ("jindou_bytes_in_total", Counter, |v| v.traffic.bytes_in, "Bytes from clients."),
    ("jindou_bytes_out_total", Counter, |v| v.traffic.bytes_out, "Bytes to clients."),
    ("jindou_unacked_recvs", Gauge, |v| v.unacked, "RECVs that wait for their RECVACK."),
    (
        "jindou_retries_dropped_total",
        Counter,
        |v| v.retries_dropped,
        "RECVs given up: after the last try, or because too many waited.",
    ),
    (
        "jindou_sessions_out_of_step_total",
        Counter,
        |v| v.sessions_out_of_step,
        "Sessions ended because a RECV came too late or may have gone by: clients come and read.",
    ),
    ("jindou_messages_stored_total", Counter, |v| v.stored, "Messages stored."),
    (
        "jindou_messages_deduplicated_total",
        Counter,
        |v| v.deduplicated,
        "Sends answered with the first message's id and seq.",
    ),
    (
        "jindou_dedupe_cut_total",
        Counter,
        |v| v.dedupe_cut,
        "Remembered sends dropped by count before their time was over.",
    ),
    ("jindou_proposals_total", Counter, |v| v.proposals, "Entries proposed."),
    ("jindou_notices", Gauge, |v| v.notices, "Events that wait for the receiver of webhooks."),
    ("jindou_notice_bytes", Gauge, |v| v.notices_size, "Their bytes in the outbox."),
    (
        "jindou_notices_dropped_total",
        Counter,
        |v| v.notices_dropped,
        "Events given up: the outbox was full, or they were too old.",
    ),
    ("jindou_shed_total", Counter, |v| v.shed, "Commands refused because a bound was reached."),
    ("jindou_slots_leading", Gauge, |v| v.slots_leading, "Slots led."),
    ("jindou_connects_total", Counter, |v| v.connects, "CONNECTs accepted."),
    ("jindou_connects_refused_total", Counter, |v| v.connects_refused, "CONNECTs refused."),
    (
        "jindou_protocol_errors_total",
        Counter,
        |v| v.protocol_errors,
        "Connections closed for a malformed frame.",
    ),
    ("jindou_channels_cached", Gauge, |v| v.channels_cached, "Channels in memory."),
    ("jindou_users_cached", Gauge, |v| v.users_cached, "Users in memory."),
    ("jindou_streams_cached", Gauge, |v| v.streams_cached, "Streams in memory."),
    (
        "jindou_stream_events_total",
        Counter,
        |v| v.stream_events,
        "Events appended to streams, on every replica that applies them.",
    ),
    ("jindou_events_pushed_total", Counter, |v| v.events_pushed, "EVENT frames to clients."),
];

type OfIo = fn(&Io) -> u64;

/// Our names of what the net crate counts: one series per shard.
const IO: &[(&str, Kind, OfIo, &str)] = &[
    ("jindou_accepted_total", Counter, |io| io.accepted, "Client connections accepted."),
    ("jindou_refused_total", Counter, |io| io.refused, "Connections refused: a bound was reached."),
    ("jindou_accept_errors_total", Counter, |io| io.accept_errors, "Accepts that failed."),
    (
        "jindou_tls_handshakes_cut_total",
        Counter,
        |io| io.handshakes_cut,
        "TLS handshakes of clients that took too long, or were too many.",
    ),
    (
        "jindou_closed_slow_total",
        Counter,
        |io| io.closed_slow,
        "Readers too slow for their output.",
    ),
    (
        "jindou_closed_late_total",
        Counter,
        |io| io.closed_late,
        "Connections cut: closing too long.",
    ),
    ("jindou_reads_total", Counter, |io| io.reads, "Reads from clients."),
    ("jindou_sends_total", Counter, |io| io.sends, "Send system calls to clients."),
    ("jindou_writes_total", Counter, |io| io.writes, "Writes; many leave in one send."),
    ("jindou_output_bytes", Gauge, |io| io.output_size, "Bytes that wait for clients."),
    ("jindou_turns_total", Counter, |io| io.turns, "Turns of the shard's loop."),
    ("jindou_wakeups_total", Counter, |io| io.wakeups, "Times the parked shard was woken."),
    ("jindou_envelopes_total", Counter, |io| io.envelopes, "Envelopes sent to other shards."),
    ("jindou_ring_full_total", Counter, |io| io.ring_full, "Turns with a full ring."),
    ("jindou_http_accepted_total", Counter, |io| io.http_accepted, "HTTP connections accepted."),
    ("jindou_http_connections", Gauge, |io| io.http_open, "HTTP connections open."),
    ("jindou_http_requests_total", Counter, |io| io.http_requests, "HTTP requests answered."),
    ("jindou_link_bytes_in_total", Counter, |io| io.link_bytes_in, "Bytes from other nodes."),
    ("jindou_link_bytes_out_total", Counter, |io| io.link_bytes_out, "Bytes to other nodes."),
    ("jindou_link_frames_in_total", Counter, |io| io.link_frames_in, "Frames from other nodes."),
    ("jindou_link_frames_out_total", Counter, |io| io.link_frames_out, "Frames to other nodes."),
    ("jindou_link_refusals_total", Counter, |io| io.link_refusals, "Links of others, refused."),
];

/// v2's names of traffic between nodes, with their values as sums over shards. The traffic of its
/// channels is Raft's here, as there.
const V2_LINKS: &[(&str, OfIo, &str)] = &[
    ("system_intranet_incoming_bytes_total", |io| io.link_bytes_in, "Bytes from other nodes."),
    ("system_intranet_outgoing_bytes_total", |io| io.link_bytes_out, "Bytes to other nodes."),
    ("cluster_msg_incoming_bytes_total", |io| io.link_bytes_in, "Bytes from other nodes."),
    ("cluster_msg_incoming_count_total", |io| io.link_frames_in, "Frames from other nodes."),
    ("cluster_msg_outgoing_bytes_total", |io| io.link_bytes_out, "Bytes to other nodes."),
    ("cluster_msg_outgoing_count_total", |io| io.link_frames_out, "Frames to other nodes."),
    ("cluster_channel_msg_incoming_bytes_total", |io| io.raft_bytes_in, "Bytes of Raft's frames."),
    ("cluster_channel_msg_incoming_count_total", |io| io.raft_frames_in, "Raft's frames."),
    ("cluster_channel_msg_outgoing_bytes_total", |io| io.raft_bytes_out, "Bytes of Raft's frames."),
    ("cluster_channel_msg_outgoing_count_total", |io| io.raft_frames_out, "Raft's frames."),
];

/// v2's names of SENDs that one node passes on to another: they are not counted apart here, and v2
/// leaves the names at zero too.
const ALWAYS_ZERO: &[&str] = &[
    "cluster_sendpacket_incoming_bytes_total",
    "cluster_sendpacket_incoming_count_total",
    "cluster_sendpacket_outgoing_bytes_total",
    "cluster_sendpacket_outgoing_count_total",
];

/// GET /metrics.
pub(crate) async fn metrics<N: Node>(api: &Api<N>) -> HttpResponse {
    let shards = match varz::of_shards(api).await {
        Ok(shards) => shards,
        // No half-true figures: the scrape fails and the gap is seen.
        Err(refusal) => {
            let text = refusal.to_string();
            return HttpResponse::text(StatusCode::SERVICE_UNAVAILABLE, TEXT, text);
        }
    };
    let figures = match api.node.figures().await {
        Ok(figures) => figures,
        Err(text) => return HttpResponse::text(StatusCode::SERVICE_UNAVAILABLE, TEXT, text),
    };
    let (io, process) = (api.node.io(), api.node.process());
    let logins = api.settings.login.attempts.counts();
    match render(&shards, &figures, &io, &process, logins, &api.settings.version.version) {
        Ok(text) => HttpResponse::text(StatusCode::OK, TEXT, text),
        Err(error) => {
            HttpResponse::text(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string())
        }
    }
}

fn render(
    shards: &[Vars],
    figures: &ClusterFigures,
    io: &[Io],
    process: &Process,
    (logins_failed, logins_limited): (u64, u64),
    version: &str,
) -> prometheus::Result<Vec<u8>> {
    let page = Page { registry: Registry::new() };
    for (name, kind, value, help) in V2 {
        page.put(v2(name, help), *kind, shards.iter().map(value).sum())?;
    }
    for (name, value, help) in V2_LINKS {
        page.put(v2(name, help), Counter, io.iter().map(value).sum())?;
    }
    for name in ALWAYS_ZERO {
        page.put(v2(name, "Traffic between nodes."), Counter, 0)?;
    }
    page.put(v2("db_disk_space_usage", "Bytes of the data directory."), Gauge, process.disk_size)?;
    page.put_float(
        v2("system_cpu_percent_total", "Per cent of one CPU."),
        Gauge,
        process.cpu_percent,
    )?;
    for (name, kind, value, help) in OURS {
        page.put_by_shard(name, *kind, help, shards.iter().map(value))?;
    }
    for (name, kind, value, help) in IO {
        page.put_by_shard(name, *kind, help, io.iter().map(value))?;
    }
    cluster::put(&page, figures)?;
    let logins = [
        ("jindou_manager_logins_failed_total", logins_failed, "Log-ins with a wrong password."),
        ("jindou_manager_logins_limited_total", logins_limited, "Log-ins refused unseen."),
    ];
    for (name, value, help) in logins {
        page.put(Opts::new(name, help), Counter, value)?;
    }
    let driver = if process.io_uring { "io_uring" } else { "epoll" };
    page.put(
        Opts::new("jindou_driver", "How shards wait for sockets.").const_label("kind", driver),
        Gauge,
        1,
    )?;
    of_process(&page, process)?;
    let webhooks = &process.webhooks;
    for (name, value, help) in [
        ("jindou_webhook_events_total", webhooks.taken, "Events that the receiver has taken."),
        ("jindou_webhook_failures_total", webhooks.failures, "Calls that it has not taken."),
        (
            "jindou_webhook_given_up_total",
            webhooks.given_up,
            "Events given up after having been tried for too long.",
        ),
        (
            "jindou_datasource_failures_total",
            process.datasource_failures,
            "Questions that the datasource has not answered.",
        ),
    ] {
        page.put(Opts::new(name, help), Counter, value)?;
    }
    page.put(
        Opts::new(
            "jindou_log_lines_dropped_total",
            "Log lines that a disk or a pipe was too slow for.",
        ),
        Counter,
        process.log_dropped,
    )?;
    page.put(
        Opts::new("jindou_build_info", "What runs.").const_label("version", version),
        Gauge,
        1,
    )?;
    page.text()
}

/// Names that exporters of every language share, and two of Go's that dashboards of v2 show.
fn of_process(page: &Page, process: &Process) -> prometheus::Result<()> {
    let own = |name: &str, help: &str| Opts::new(name, help);
    let started = process.started_ms.max(0) / 1000;
    let gauges = [
        ("go_goroutines", process.threads, "Threads: what stands for goroutines here."),
        ("go_memstats_alloc_bytes", process.allocated_size, "Bytes in use."),
        ("go_threads", process.threads, "Threads."),
        ("process_resident_memory_bytes", process.resident_size, "Resident memory size in bytes."),
        ("process_virtual_memory_bytes", process.virtual_size, "Virtual memory size in bytes."),
        ("process_open_fds", process.open_fds, "Number of open file descriptors."),
        ("process_max_fds", process.fds_max, "Maximum number of open file descriptors."),
        (
            "process_start_time_seconds",
            u64::try_from(started).unwrap_or(0),
            "Start time of the process since unix epoch in seconds.",
        ),
    ];
    for (name, value, help) in gauges {
        page.put(own(name, help), Gauge, value)?;
    }
    page.put_float(
        own("process_cpu_seconds_total", "Total user and system CPU time spent in seconds."),
        Counter,
        process.cpu_seconds,
    )
}

/// A series of v2's exporter, with its labels.
fn v2(name: &str, help: &str) -> Opts {
    Opts::new(name, help)
        .const_label("otel_scope_name", "metrics")
        .const_label("otel_scope_version", "")
}

/// Series gathered for one scrape.
struct Page {
    registry: Registry,
}

impl Page {
    /// A series for each shard, in their order.
    fn put_by_shard(
        &self,
        name: &str,
        kind: Kind,
        help: &str,
        values: impl Iterator<Item = u64>,
    ) -> prometheus::Result<()> {
        for (shard, value) in values.enumerate() {
            self.put(Opts::new(name, help).const_label("shard", shard.to_string()), kind, value)?;
        }
        Ok(())
    }

    fn put(&self, opts: Opts, kind: Kind, value: u64) -> prometheus::Result<()> {
        match kind {
            Counter => {
                let metric = GenericCounter::<AtomicU64>::with_opts(opts)?;
                metric.inc_by(value);
                self.registry.register(Box::new(metric))
            }
            Gauge => {
                let metric = GenericGauge::<AtomicU64>::with_opts(opts)?;
                metric.set(value);
                self.registry.register(Box::new(metric))
            }
        }
    }

    fn put_float(&self, opts: Opts, kind: Kind, value: f64) -> prometheus::Result<()> {
        match kind {
            Counter => {
                let metric = prometheus::Counter::with_opts(opts)?;
                metric.inc_by(value.max(0.0));
                self.registry.register(Box::new(metric))
            }
            Gauge => {
                let metric = prometheus::Gauge::with_opts(opts)?;
                metric.set(value);
                self.registry.register(Box::new(metric))
            }
        }
    }

    fn text(&self) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests;
