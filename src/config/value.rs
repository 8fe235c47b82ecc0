//! Text into values, by the rules of Go's `cast` library that v2.2.5 reads its settings with, plus
//! the day unit `d` and byte units of ours (operations.md §1.1).

use std::time::Duration;

/// A boolean as Go's `strconv.ParseBool` reads it; `None` for any other text.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.trim() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A whole number: decimal, `0x…`, `0o…`, `0b…`, with `_` between digits; `5.0` counts as 5.
pub(super) fn integer(text: &str) -> Option<i64> {
    let text = text.trim().replace('_', "");
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(&text)),
    };
    let digits = match digits.split_once('.') {
        Some((whole, zeros)) if zeros.bytes().all(|b| b == b'0') => whole,
        _ => digits,
    };
    let lower = digits.to_ascii_lowercase();
    let parsed = if let Some(hex) = lower.strip_prefix("0x") {
        i64::from_str_radix(hex, 16)
    } else if let Some(octal) = lower.strip_prefix("0o") {
        i64::from_str_radix(octal, 8)
    } else if let Some(binary) = lower.strip_prefix("0b") {
        i64::from_str_radix(binary, 2)
    } else {
        lower.parse::<u64>().map(|n| i64::try_from(n).unwrap_or(i64::MAX))
    };
    parsed.ok().map(|n| if negative { -n } else { n })
}

/// A count of bytes: a whole number, or one followed by `B`, `K`, `KB`, `KiB`, `M`, … `GiB` (all
/// powers of 1024, in any case).
pub(super) fn size(text: &str) -> Option<i64> {
    let text = text.trim();
    let cut = text
        .find(|c: char| c.is_ascii_alphabetic() && !text.to_ascii_lowercase().starts_with("0x"))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(cut);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    integer(number)?.checked_mul(1 << shift)
}

/// `n` bytes in the largest unit that divides it: `8 KiB` is `8KiB`.
pub(super) fn size_text(n: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if n != 0 && n.is_multiple_of(1 << shift) {
            return format!("{}{unit}", n >> shift);
        }
    }
    n.to_string()
}

/// A duration in Go's syntax (`500ms`, `1h30m`, `1.5s`) with `d` for 24 hours. Text without a unit is
/// nanoseconds, as `cast` has it. `None` for anything else and for negative values.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let text = text.strip_prefix('+').unwrap_or(text);
    if text.is_empty() {
        return None;
    }
    if !text.contains(|c: char| c.is_alphabetic()) {
        let nanos = integer(text)?;
        return u64::try_from(nanos).ok().map(Duration::from_nanos);
    }
    let mut rest = text;
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        total = total.checked_add(part(number, unit_nanos(unit)?)?)?;
        rest = tail;
    }
    let nanos = u64::try_from(total).ok()?;
    // Go's Duration is an i64 of nanoseconds; beyond it the text does not parse.
    (nanos <= i64::MAX.cast_unsigned()).then(|| Duration::from_nanos(nanos))
}

fn unit_nanos(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return None,
    })
}

/// `number` (digits with at most one point) of a unit, in nanoseconds.
fn part(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut total = if whole.is_empty() { 0 } else { whole.parse::<u128>().ok()? };
    total = total.checked_mul(unit)?;
    let mut weight = unit;
    for digit in fraction.chars() {
        weight /= 10;
        total = total.checked_add(u128::from(digit.to_digit(10)?) * weight)?;
    }
    Some(total)
}

/// A duration as text that [`duration`] reads back, without Go's trailing zero parts: `3m`, `1h30m`.
pub(super) fn duration_text(d: Duration) -> String {
    let nanos = d.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    for (unit, name, sub) in [(1u128, "ns", 1_000), (1_000, "us", 1_000), (1_000_000, "ms", 1_000)]
    {
        if !nanos.is_multiple_of(unit * sub) {
            return format!("{}{name}", nanos / unit);
        }
    }
    let mut seconds = nanos / 1_000_000_000;
    let mut text = String::new();
    for (unit, name) in [(3600, "h"), (60, "m"), (1, "s")] {
        let n = seconds / unit;
        seconds %= unit;
        if n > 0 {
            text.push_str(&format!("{n}{name}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_those_of_go_and_nothing_else() {
        for text in ["1", "t", "T", "true", "TRUE", "True"] {
            assert_eq!(boolean(text), Some(true), "{text}");
        }
        for text in ["0", "f", "F", "false", "FALSE", "False"] {
            assert_eq!(boolean(text), Some(false), "{text}");
        }
        for text in ["yes", "on", "tRUE", "2", ""] {
            assert_eq!(boolean(text), None, "{text}");
        }
    }

    #[test]
    fn durations_follow_go_and_know_days() {
        let cases = [
            ("500ms", 500_000_000),
            ("60s", 60_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("30d", 2_592_000_000_000_000),
            ("1d12h", 129_600_000_000_000),
            ("60", 60),
            ("0", 0),
            ("3µs", 3_000),
            ("+2us", 2_000),
        ];
        for (text, nanos) in cases {
            assert_eq!(duration(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        for text in ["", "-1s", "s", "5x", "1h2", "1..5s", "99999999999h", "five", ".s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn duration_text_reads_back() {
        for (nanos, text) in [
            (180_000_000_000, "3m"),
            (5_400_000_000_000, "1h30m"),
            (500_000_000, "500ms"),
            (2_592_000_000_000_000, "720h"),
            (1_500, "1500ns"),
            (0, "0s"),
        ] {
            let d = Duration::from_nanos(nanos);
            assert_eq!(duration_text(d), text);
            assert_eq!(duration(text), Some(d));
        }
    }

    #[test]
    fn integers_and_sizes() {
        for (text, n) in
            [("5", 5), ("-3", -3), ("0x10", 16), ("1_000", 1000), ("5.0", 5), ("010", 10)]
        {
            assert_eq!(integer(text), Some(n), "{text}");
        }
        for text in ["", "five", "1.5", "1 2", "--1"] {
            assert_eq!(integer(text), None, "{text}");
        }
        for (text, n) in
            [("4096", 4096), ("8KiB", 8192), ("8 kb", 8192), ("2m", 2 << 20), ("1G", 1 << 30)]
        {
            assert_eq!(size(text), Some(n), "{text}");
        }
        assert_eq!(size("3 parsecs"), None);
        assert_eq!(size_text(8192), "8KiB");
        assert_eq!(size_text(1000), "1000");
    }
}
