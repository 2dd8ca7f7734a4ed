//! Wall-clock time as people and tools read it, always UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// `2026-11-21T08:10:02.123Z` (RFC 3339). A time before 1970 is shown as the start of 1970.
pub fn utc(time: SystemTime) -> String {
    let mut text = Vec::new();
    append_rfc3339(&mut text, time);
    // It is ASCII.
    String::from_utf8(text).unwrap_or_default()
}

/// See [`utc`].
pub(super) fn append_rfc3339(line: &mut Vec<u8>, time: SystemTime) {
    let Utc { year, month, day, hour, minute, second, millisecond } = Utc::of(time);
    append_year(line, year);
    for (before, number) in [(b'-', month), (b'-', day), (b'T', hour), (b':', minute), (b':', second)] {
        line.push(before);
        append_two(line, number);
    }
    line.push(b'.');
    line.push(digit(u64::from(millisecond) / 100));
    append_two(line, u64::from(millisecond) % 100);
    line.push(b'Z');
}

/// `21/Nov/2026:08:10:02 +0000` (Common Log Format).
pub(super) fn append_common_log(line: &mut Vec<u8>, time: SystemTime) {
    let Utc { year, month, day, hour, minute, second, .. } = Utc::of(time);
    let month =
        month.checked_sub(1).and_then(|index| MONTHS.get(usize::try_from(index).ok()?)).unwrap_or(&"");
    append_two(line, day);
    line.push(b'/');
    line.extend_from_slice(month.as_bytes());
    line.push(b'/');
    append_year(line, year);
    for number in [hour, minute, second] {
        line.push(b':');
        append_two(line, number);
    }
    line.extend_from_slice(b" +0000");
}

fn append_year(line: &mut Vec<u8>, year: u64) {
    append_two(line, year / 100);
    append_two(line, year % 100);
}

fn append_two(line: &mut Vec<u8>, number: u64) {
    line.extend_from_slice(&[digit(number / 10), digit(number)]);
}

/// The last one.
const fn digit(number: u64) -> u8 {
    let last = (number % 10) as u8;
    b'0' + last
}

/// A moment in the Gregorian calendar.
struct Utc {
    year: u64,
    /// 1 to 12.
    month: u64,
    /// 1 to 31.
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    millisecond: u32,
}

impl Utc {
    /// Clocks before 1970 read as 1970.
    fn of(time: SystemTime) -> Self {
        let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since_1970.as_secs();
        let (year, month, day) = date(seconds / 86_400);
        let second_of_day = seconds % 86_400;
        Self {
            year,
            month,
            day,
            hour: second_of_day / 3_600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
            millisecond: since_1970.subsec_millis(),
        }
    }
}

/// Year, month and day of a day counted from 1970-01-01.
///
/// Years are counted from March, so that the leap day is the last of its year: then the months before
/// any day of the year are a straight line (153 days in five months), as in the calendar algorithms
/// that H. Hinnant published in 2013.
const fn date(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + DAYS_BEFORE_1970;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let month = if months_since_march < 10 { months_since_march + 3 } else { months_since_march - 9 };
    let year = era * 400 + year_of_era + (month <= 2) as u64;
    (year, month, day)
}

/// From 0000-03-01 to 1970-01-01.
const DAYS_BEFORE_1970: u64 = 719_468;

/// Four hundred years, after which the calendar repeats.
const DAYS_PER_ERA: u64 = 146_097;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
        assert_eq!(utc(UNIX_EPOCH + Duration::from_micros(1_999)), "1970-01-01T00:00:00.001Z");
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn known_moments_read_as_expected() {
        // Each checked with `date --utc --date @SECONDS`.
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(at(seconds)), expected);
        }
    }

    #[test]
    fn milliseconds_are_cut_not_rounded_into_the_next_second() {
        let time = at(1) + Duration::from_micros(999_999);
        assert_eq!(utc(time), "1970-01-01T00:00:01.999Z");
    }

    #[test]
    fn the_common_log_format_names_the_month() {
        let mut line = Vec::new();
        append_common_log(&mut line, at(951_782_399));
        assert_eq!(line, b"28/Feb/2000:23:59:59 +0000");
    }

    #[test]
    fn a_clock_before_1970_reads_as_1970() {
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(utc(before), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let mut yesterday = date(0);
        for day in 1..DAYS_PER_ERA {
            let today = date(day);
            let (year, month, day) = yesterday;
            let follows = today == (year, month, day + 1)
                || today == (year, month + 1, 1) && day >= 28
                || today == (year + 1, 1, 1) && (month, day) == (12, 31);
            assert!(follows, "{today:?} after {yesterday:?}");
            yesterday = today;
        }
        assert_eq!(date(DAYS_PER_ERA), (2370, 1, 1));
    }
}
