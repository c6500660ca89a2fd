//! Dates as mail writes them: RFC 5322 §3.3, IMAP's date-time (RFC 3501 §9), ISO 8601 for people.

use crate::time::Timestamp;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// A civil date and time of day in UTC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Civil {
    /// The year, proleptic Gregorian.
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
    /// 0 is Sunday.
    pub weekday: u8,
}

/// Days since 1970-01-01 of a civil date.
#[must_use]
pub const fn days_from_civil(year: i64, month: u8, day: u8) -> i64 {
    // The year is taken to begin in March, so that the leap day is its last.
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let month_from_march = (month as i64 + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day as i64 - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The civil date and time in UTC of a point in time.
#[must_use]
pub fn civil(at: Timestamp) -> Civil {
    let secs = at.secs();
    let days = secs.div_euclid(86_400);
    let second_of_day = secs.rem_euclid(86_400);
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * day_of_year + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    Civil {
        year: year_of_era + era * 400 + i64::from(month <= 2),
        month: month as u8,
        day: (day_of_year - (153 * mp + 2) / 5 + 1) as u8,
        hour: (second_of_day / 3_600) as u8,
        minute: (second_of_day / 60 % 60) as u8,
        second: (second_of_day % 60) as u8,
        weekday: (days + 4).rem_euclid(7) as u8,
    }
}

/// `Mon, 23 Nov 2026 13:04:13 +0000`, for Date and Received (RFC 5322 §3.3).
#[must_use]
pub fn rfc5322(at: Timestamp) -> String {
    let c = civil(at);
    format!(
        "{}, {} {} {:04} {:02}:{:02}:{:02} +0000",
        DAYS[c.weekday as usize % 7],
        c.day,
        MONTHS[(c.month as usize + 11) % 12],
        c.year,
        c.hour,
        c.minute,
        c.second
    )
}

/// `"23-Nov-2026 13:04:13 +0000"` without the quotes (RFC 3501 §9 `date-time`).
#[must_use]
pub fn imap_internal_date(at: Timestamp) -> String {
    let c = civil(at);
    format!(
        "{:2}-{}-{:04} {:02}:{:02}:{:02} +0000",
        c.day,
        MONTHS[(c.month as usize + 11) % 12],
        c.year,
        c.hour,
        c.minute,
        c.second
    )
}

/// `2026-11-23T13:04:13Z`.
#[must_use]
pub fn iso8601(at: Timestamp) -> String {
    let c = civil(at);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        c.year, c.month, c.day, c.hour, c.minute, c.second
    )
}

/// Reads a Date header's value (RFC 5322 §3.3 and its obsolete forms: two-digit years, zone names,
/// no seconds, comments). `None` when it is not one.
#[must_use]
pub fn parse_rfc5322(text: &str) -> Option<Timestamp> {
    let text = without_comments(text)?;
    let text = text.split_once(',').map_or(text.as_str(), |(_, rest)| rest);
    let mut words = text.split_ascii_whitespace();
    let day: u8 = words.next()?.parse().ok()?;
    let month = month_number(words.next()?)?;
    let year_text = words.next()?;
    let mut year: i64 = year_text.parse().ok()?;
    match year_text.len() {
        2 => year += if year < 50 { 2000 } else { 1900 },
        3 => year += 1900,
        4 => {}
        _ => return None,
    }
    let mut time = words.next()?.split(':');
    let hour: i64 = time.next()?.parse().ok()?;
    let minute: i64 = time.next()?.parse().ok()?;
    let second: i64 = time.next().map_or(Some(0), |s| s.parse().ok())?;
    let offset = zone_offset_secs(words.next().unwrap_or("+0000"));
    assemble(year, month, day, hour, minute, second, offset)
}

/// Reads IMAP's date-time without quotes: `17-Jul-1996 02:44:25 -0700` (RFC 3501 §9).
#[must_use]
pub fn parse_imap_internal_date(text: &str) -> Option<Timestamp> {
    let mut words = text.split_ascii_whitespace();
    let mut date = words.next()?.split('-');
    let day: u8 = date.next()?.parse().ok()?;
    let month = month_number(date.next()?)?;
    let year: i64 = date.next().filter(|y| y.len() == 4)?.parse().ok()?;
    let mut time = words.next()?.split(':');
    let hour: i64 = time.next()?.parse().ok()?;
    let minute: i64 = time.next()?.parse().ok()?;
    let second: i64 = time.next()?.parse().ok()?;
    let offset = zone_offset_secs(words.next()?);
    assemble(year, month, day, hour, minute, second, offset)
}

/// Reads `2026-11-23T13:04:13Z` or with an offset like `+01:00` (RFC 3339 §5.6). Fractions of a second
/// are dropped.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_once(['T', 't'])?;
    let mut date = date.split('-');
    let (year, month, day) = (date.next()?, date.next()?, date.next()?);
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone_at);
    let mut clock = clock.split(['.', ':']);
    let (hour, minute, second) = (clock.next()?, clock.next()?, clock.next()?);
    let digits = |text: &str, len: usize| -> Option<i64> {
        let is_number = text.len() == len && text.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| text.parse().ok()).flatten()
    };
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let secs = digits(hours, 2)? * 3_600 + digits(minutes, 2)? * 60;
            if zone.starts_with('-') { -secs } else { secs }
        }
    };
    let fraction_is_good = clock
        .next()
        .is_none_or(|f| !f.is_empty() && f.bytes().all(|b| b.is_ascii_digit()));
    if date.next().is_some() || clock.next().is_some() || !fraction_is_good {
        return None;
    }
    let [month, day] = [month, day].map(|n| digits(n, 2).and_then(|n| u8::try_from(n).ok()));
    if !month.is_some_and(|m| (1..=12).contains(&m)) {
        return None;
    }
    assemble(
        digits(year, 4)?,
        month?,
        day?,
        digits(hour, 2)?,
        digits(minute, 2)?,
        digits(second, 2)?,
        offset,
    )
}

/// The number (1 to 12) of a month's three-letter name, case ignored.
#[must_use]
pub fn month_number(name: &str) -> Option<u8> {
    let i = MONTHS
        .iter()
        .position(|m| name.get(..3).is_some_and(|n| m.eq_ignore_ascii_case(n)))?;
    Some(i as u8 + 1)
}

fn assemble(
    year: i64,
    month: u8,
    day: u8,
    hour: i64,
    minute: i64,
    second: i64,
    offset: i64,
) -> Option<Timestamp> {
    let in_range = (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second)
        && (0..=9999).contains(&year);
    if !in_range {
        return None;
    }
    let secs = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset;
    Some(Timestamp::from_secs(secs))
}

fn zone_offset_secs(zone: &str) -> i64 {
    let sign = match zone.as_bytes().first() {
        Some(b'+') => 1,
        Some(b'-') => -1,
        // RFC 5322 §4.3: the North American names; every other name means nothing certain.
        _ => {
            return match zone.to_ascii_uppercase().as_str() {
                "EDT" => -4 * 3_600,
                "EST" | "CDT" => -5 * 3_600,
                "CST" | "MDT" => -6 * 3_600,
                "MST" | "PDT" => -7 * 3_600,
                "PST" => -8 * 3_600,
                _ => 0,
            };
        }
    };
    match zone
        .get(1..)
        .filter(|d| d.len() == 4 && d.bytes().all(|b| b.is_ascii_digit()))
    {
        Some(d) => {
            let n: i64 = d.parse().unwrap_or(0);
            sign * (n / 100 * 3_600 + n % 100 * 60)
        }
        None => 0,
    }
}

/// The text without comments in parentheses; `None` when they do not balance.
fn without_comments(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut depth = 0u32;
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => {
                depth = depth.checked_sub(1)?;
                out.push(' ');
            }
            c if depth == 0 => out.push(c),
            _ => {}
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_3339() {
        let at = parse_rfc3339("2026-11-23T13:04:13Z").unwrap();
        assert_eq!(iso8601(at), "2026-11-23T13:04:13Z");
        for same in ["2026-11-23T14:04:13.250+01:00", "2026-11-23t11:34:13-01:30"] {
            assert_eq!(parse_rfc3339(same), Some(at), "{same}");
        }
        for bad in [
            "",
            "2026-11-23",
            "2026-11-23T13:04Z",
            "2026-13-23T13:04:13Z",
            "2026-11-23T13:04:13",
            "2026-11-23T13:04:13.Z",
            "2026-11-23T13:04:13+0100",
            "2026-11-23T+3:04:13Z",
        ] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn known_dates() {
        let t = Timestamp::from_secs(1_795_439_053);
        assert_eq!(iso8601(t), "2026-11-23T13:04:13Z");
        assert_eq!(rfc5322(t), "Mon, 23 Nov 2026 13:04:13 +0000");
        assert_eq!(imap_internal_date(t), "23-Nov-2026 13:04:13 +0000");
        assert_eq!(
            parse_rfc5322("Fri, 21 Nov 1997 09:55:06 -0600").unwrap().secs(),
            880_127_706
        );
        assert_eq!(
            parse_rfc5322("21 Nov 97 09:55 CST (a comment)").unwrap().secs(),
            880_127_700
        );
        assert_eq!(
            parse_imap_internal_date("17-Jul-1996 02:44:25 -0700")
                .unwrap()
                .secs(),
            837_596_665
        );
        for bad in [
            "",
            "x",
            "99 Nov 1997 09:55:06 +0000",
            "21 Foo 1997 1:1:1 +0000",
            "21 Nov 1997 25:00:00 +0000",
        ] {
            assert_eq!(parse_rfc5322(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn written_dates_read_back(secs in 0i64..253_402_300_799) {
            let t = Timestamp::from_secs(secs);
            prop_assert_eq!(parse_rfc5322(&rfc5322(t)), Some(t));
            prop_assert_eq!(parse_imap_internal_date(&imap_internal_date(t)), Some(t));
        }

        #[test]
        fn any_text_is_answered(text in any::<String>()) {
            let _ = parse_rfc5322(&text);
            let _ = parse_imap_internal_date(&text);
        }
    }
}
