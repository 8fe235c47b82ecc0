//! Times and durations as v2 writes them.

/// A duration in ms as `1d2h3m4s`: from the largest part that isn't zero down to the seconds.
pub(crate) fn duration(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    let (minutes, s) = (seconds / 60, seconds % 60);
    let (hours, m) = (minutes / 60, minutes % 60);
    let (days, h) = (hours / 24, hours % 24);
    let (years, d) = (days / 365, days % 365);
    match (years, days, hours, minutes) {
        (0, 0, 0, 0) => format!("{s}s"),
        (0, 0, 0, _) => format!("{m}m{s}s"),
        (0, 0, _, _) => format!("{h}h{m}m{s}s"),
        (0, _, _, _) => format!("{d}d{h}h{m}m{s}s"),
        _ => format!("{years}y{d}d{h}h{m}m{s}s"),
    }
}

/// A time in Unix ms as RFC 3339 with an offset from UTC. The fraction goes without zeros at its
/// end.
pub(crate) fn rfc3339(unix_ms: i64, utc_offset_seconds: i32) -> String {
    let local_ms = unix_ms.saturating_add(i64::from(utc_offset_seconds).saturating_mul(1000));
    let (seconds, ms) = (local_ms.div_euclid(1000), local_ms.rem_euclid(1000));
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (h, m, s) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let fraction = if ms == 0 {
        String::new()
    } else {
        let digits = format!(".{ms:03}");
        digits.trim_end_matches('0').to_owned()
    };
    let zone = if utc_offset_seconds == 0 {
        "Z".to_owned()
    } else {
        let sign = if utc_offset_seconds < 0 { '-' } else { '+' };
        let minutes = utc_offset_seconds.unsigned_abs() / 60;
        format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    };
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}{fraction}{zone}")
}

/// A time in Unix ms as `YYYY-MM-DD hh:mm`, in a zone so far from UTC.
pub(crate) fn minutes(unix_ms: i64, utc_offset_seconds: i32) -> String {
    let seconds = unix_ms.div_euclid(1000).saturating_add(utc_offset_seconds.into());
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (h, m) = (of_day / 3600, of_day / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}")
}

/// The date of a day counted from 1970-01-01, in the Gregorian calendar. A year is taken to begin
/// in March, so that the day that some years lack is the last one.
fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_PER_400_YEARS: i64 = 146_097;
    // 0000-03-01 is 719,468 days before 1970-01-01.
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(DAYS_PER_400_YEARS);
    let of_era = shifted.rem_euclid(DAYS_PER_400_YEARS);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_start_at_their_largest_part() {
        for (ms, text) in [
            (-5, "0s"),
            (999, "0s"),
            (3_000, "3s"),
            (62_000, "1m2s"),
            (3_600_000, "1h0m0s"),
            (93_784_000, "1d2h3m4s"),
            (366 * 86_400_000, "1y1d0h0m0s"),
        ] {
            assert_eq!(duration(ms), text);
        }
    }

    #[test]
    fn data_pages_show_minutes() {
        assert_eq!(minutes(1_735_689_659_999, 28_800), "2025-01-01 08:00");
        assert_eq!(minutes(-1, 0), "1969-12-31 23:59");
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(rfc3339(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_735_689_600_120, 28_800), "2025-01-01T08:00:00.12+08:00");
        assert_eq!(rfc3339(951_782_400_001, -16_200), "2000-02-28T19:30:00.001-04:30");
        assert_eq!(rfc3339(-1, 0), "1969-12-31T23:59:59.999Z");
    }

    proptest! {
        #[test]
        fn days_follow_each_other(day in -800_000_i64..3_000_000) {
            let (year, month, of_month) = civil(day);
            let next = civil(day + 1);
            let is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
            let size = match month {
                2 => 28 + i64::from(is_leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            let expected = match (of_month == size, month) {
                (false, _) => (year, month, of_month + 1),
                (true, 12) => (year + 1, 1, 1),
                (true, _) => (year, month + 1, 1),
            };
            prop_assert_eq!(next, expected);
        }
    }
}
