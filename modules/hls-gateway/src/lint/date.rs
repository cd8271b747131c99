//! EXT-X-PROGRAM-DATE-TIME (RFC 8216bis §4.4.4.6).

/// ISO 8601 with a time zone, in seconds since 1970. Every number has as many digits as it has there: none of them can
/// overflow what is calculated with it.
pub(super) fn seconds(text: &str) -> Option<f64> {
    let (day, time) = text.split_once(['T', 't'])?;
    let mut day = day.split('-');
    let (year, month, day) = (number(day.next()?, 4)?, number(day.next()?, 2)?, last(day, 2)?);
    let (clock, zone) = time.split_at(time.find(['Z', 'z', '+', '-'])?);
    let mut clock = clock.split(':');
    let (hour, minute) = (number(clock.next()?, 2)?, number(clock.next()?, 2)?);
    let (whole, fraction) = clock.next().map(|second| second.split_once('.').unwrap_or((second, "0")))?;
    let second = number(whole, 2)?;
    let is_date = (1..=12).contains(&month) && (1..=31).contains(&day);
    // A leap second is one more.
    if !is_date || hour > 23 || minute > 59 || second > 60 || clock.next().is_some() {
        return None;
    }
    // Days since 1970, March first.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 719_469;
    let minutes = hour * 60 + minute - offset(zone)?;
    Some((days * 86_400 + minutes * 60 + second) as f64 + part(fraction)?)
}

/// Minutes east of Greenwich.
fn offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("Z") {
        return Some(0);
    }
    let (sign, zone) = zone.split_at_checked(1)?;
    let (hours, minutes) = zone.split_once(':').or_else(|| zone.split_at_checked(2))?;
    let minutes = number(hours, 2)? * 60 + number(minutes, 2)?;
    Some(if sign == "-" { -minutes } else { minutes })
}

/// What is behind the point.
fn part(digits: &str) -> Option<f64> {
    let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    format!("0.{digits}").parse().ok().filter(|_| plain)
}

fn last<'a>(mut texts: impl Iterator<Item = &'a str>, digits: usize) -> Option<i64> {
    let last = number(texts.next()?, digits)?;
    texts.next().is_none().then_some(last)
}

fn number(text: &str, digits: usize) -> Option<i64> {
    let plain = text.len() == digits && text.bytes().all(|digit| digit.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_seconds_since_1970() {
        for (text, is) in [
            ("1970-01-01T00:00:00Z", 0.0),
            ("1970-01-01T00:00:00.250z", 0.25),
            ("2026-02-28T23:59:60.5Z", 1_772_323_200.5),
            ("2024-02-29T12:00:00+02:00", 1_709_200_800.0),
            ("2024-02-29T12:00:00-0130", 1_709_213_400.0),
            ("9999-12-31T23:59:59Z", 253_402_300_799.0),
            ("0000-01-01T00:00:00Z", -62_167_219_200.0),
        ] {
            assert_eq!(seconds(text), Some(is), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_none_however_large_its_numbers_are() {
        for text in [
            "",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "99999999999999999-01-01T00:00:00Z",
            "9223372036854775807-01-01T00:00:00Z",
            "-9999-01-01T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-32T00:00:00Z",
            "2026-01-01-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T1e9:00:00Z",
            "2026-01-01T00:00:inf Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.5e9Z",
            "2026-01-01T00:00:00:00Z",
            "2026-01-01T00:00:00+99999999999999999999",
            "2026-01-01T00:00:00+1",
            "2026-01-01T00:00:00+é",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
