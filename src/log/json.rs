//! A log line as v2.2.5 writes it: one JSON object (operations.md §2.4).

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// One JSON object per line: level, time, linenum if asked for, msg, then the event's fields.
pub(super) struct Json {
    pub(super) line_numbers: bool,
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = match *metadata.level() {
            tracing::Level::ERROR => "error",
            tracing::Level::WARN => "warn",
            tracing::Level::INFO => "info",
            tracing::Level::DEBUG | tracing::Level::TRACE => "debug",
        };
        write!(writer, "{{\"level\":\"{level}\",\"time\":\"{}\"", rfc3339(now()))?;
        if let (true, Some(file), Some(line)) =
            (self.line_numbers, metadata.file(), metadata.line())
        {
            write!(writer, ",\"linenum\":{}", Value::from(format!("{file}:{line}")))?;
        }
        let msg = format!("【{}】{}", component(metadata.target()), fields.message);
        write!(writer, ",\"msg\":{}", Value::from(msg))?;
        for (name, value) in &fields.others {
            write!(writer, ",{}:{value}", Value::from(name.as_str()))?;
        }
        writeln!(writer, "}}")
    }
}

/// The line of a panic, with its newline.
pub(super) fn panic_line(message: &str, place: &str, stack: &str) -> Vec<u8> {
    let mut line = format!(
        "{{\"level\":\"panic\",\"time\":\"{}\",\"linenum\":{},\"msg\":{},\"stacktrace\":{}}}",
        rfc3339(now()),
        Value::from(place),
        Value::from(format!("【panic】{message}")),
        Value::from(stack),
    );
    line.push('\n');
    line.into_bytes()
}

/// Since 1970.
pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `jindou_net::driver` is `net::driver`.
fn component(target: &str) -> &str {
    target.strip_prefix("jindou_").unwrap_or(target)
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            // These names are the line's own.
            (name @ ("level" | "time" | "msg" | "linenum"), value) => {
                self.others.insert(format!("{name}_"), value);
            }
            (name, value) => {
                self.others.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Value::from(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, Value::from(value));
    }
}

/// A moment as `2026-04-22T07:05:01.000123+00:00`: microseconds, UTC, the offset as a number.
pub(super) fn rfc3339(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}+00:00",
        since_epoch.subsec_micros()
    )
}

/// Year, month and day of a day counted from 1970-01-01, by the proleptic Gregorian calendar.
/// Years are counted from March, so that the leap day is the last of one.
fn date(day: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097; // days in 400 years
    let day = day + 719_468; // from 0000-03-01
    let (era, day) = (day / ERA, day % ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + carry, month, day)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::EnvFilter;

    use super::*;
    use crate::config::Level;
    use crate::log::directives;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(line_numbers: bool, level: Level, act: impl FnOnce()) -> Vec<Value> {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(directives(level)))
            .event_format(Json { line_numbers })
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, act);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }

    #[test]
    fn a_line_is_a_json_object_in_v2s_shape() {
        let lines = logged(true, Level::Info, || {
            tracing::warn!(uid = "u\"1", count = 3, level = true, "bad \u{4f60} {}", 7);
            tracing::debug!("not wanted");
        });
        assert_eq!(lines.len(), 1);
        let line = &lines[0];
        assert_eq!(line["level"], "warn");
        assert_eq!(line["msg"], "【jindou::log::json::tests】bad \u{4f60} 7");
        assert_eq!(
            (&line["uid"], &line["count"], &line["level_"]),
            (&Value::from("u\"1"), &Value::from(3), &Value::from(true))
        );
        assert!(line["linenum"].as_str().unwrap().contains("json.rs:"));
    }

    #[test]
    fn libraries_are_quieter_than_we_are() {
        let lines = logged(false, Level::Debug, || {
            tracing::debug!(target: "jindou_net::driver", "ours");
            tracing::debug!(target: "openraft::core", "theirs");
            tracing::warn!(target: "openraft::core", "theirs");
            tracing::error!(target: "openraft::core", "theirs");
        });
        let said: Vec<&str> = lines.iter().map(|l| l["msg"].as_str().unwrap()).collect();
        assert_eq!(said, ["【net::driver】ours", "【openraft::core】theirs"]);
        assert!(lines[0].get("linenum").is_none());
    }

    #[test]
    fn moments_are_written_right() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000+00:00"),
            (951_782_400, "2000-02-29T00:00:00.000000+00:00"),
            (951_868_799, "2000-02-29T23:59:59.000000+00:00"),
            (1_776_841_501, "2026-04-22T07:05:01.000000+00:00"),
            (4_107_542_400, "2100-03-01T00:00:00.000000+00:00"),
        ] {
            assert_eq!(rfc3339(Duration::from_secs(seconds)), text);
        }
    }
}
