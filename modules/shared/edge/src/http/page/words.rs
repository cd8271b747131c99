//! Numbers and times as people read them.

use serde_json::Value;

/// How long ago a time in RFC 3339 was, as `3 min`; `None` where it is none.
pub(super) fn since(time: &str, now: jiff::Timestamp) -> Option<String> {
    let time: jiff::Timestamp = time.parse().ok()?;
    Some(duration(u64::try_from(now.as_second().saturating_sub(time.as_second())).unwrap_or(0)))
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// With three digits and a unit: `12.3 kbit/s`.
pub(super) fn with_unit(number: f64, unit: &str) -> String {
    let mut number = number;
    let mut prefix = "";
    for larger in ["k", "M", "G", "T"] {
        if number < 999.5 {
            break;
        }
        number /= 1000.0;
        prefix = larger;
    }
    let decimals = if prefix.is_empty() || number >= 99.95 { 0 } else { usize::from(number < 9.995) + 1 };
    format!("{number:.decimals$} {prefix}{unit}")
}

/// With three digits at most: `0.32 ms`, `98.3 ms`, `1.8 s`.
pub(super) fn milliseconds(number: f64) -> String {
    match number {
        ..9.995 => format!("{number:.2} ms"),
        ..99.95 => format!("{number:.1} ms"),
        ..999.5 => format!("{number:.0} ms"),
        _ => format!("{:.1} s", number / 1000.0),
    }
}

/// A text, number or flag as the ending of its key means it; `None` for anything that is more than one value.
pub(super) fn scalar(key: &str, value: &Value) -> Option<String> {
    Some(match value {
        Value::String(text) => text.clone(),
        Value::Bool(flag) => (if *flag { "yes" } else { "no" }).to_owned(),
        Value::Number(number) => {
            let value = number.as_f64()?;
            match key {
                _ if key.eq_ignore_ascii_case("bytes") || key.ends_with("Bytes") => with_unit(value, "B"),
                _ if key.ends_with("Bps") => with_unit(value, "bit/s"),
                _ if key.ends_with("Seconds") && value >= 0.0 => duration(value as u64),
                _ => number.to_string(),
            }
        }
        _ => return None,
    })
}

/// A key in words: `oldestUnsentSeconds` is `oldest unsent`.
pub(super) fn spaced(key: &str) -> String {
    let key = ["Seconds", "Bps"].into_iter().find_map(|unit| key.strip_suffix(unit)).unwrap_or(key);
    let mut words = String::new();
    for c in key.chars() {
        if c.is_uppercase() {
            words.push(' ');
        }
        words.extend(c.to_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        let bits = [0.0, 999.0, 1000.0, 53_703.0, 999_600.0, 4_250_000.0, 123_456_789.0];
        let text = bits.map(|bits| with_unit(bits, "bit/s")).join(", ");
        assert_eq!(
            text,
            "0 bit/s, 999 bit/s, 1.00 kbit/s, 53.7 kbit/s, 1.00 Mbit/s, 4.25 Mbit/s, 123 Mbit/s"
        );
    }

    #[test]
    fn delays_have_three_digits_at_most() {
        let text = [0.32, 20.48, 98.304, 183.5, 1835.008].map(milliseconds).join(", ");
        assert_eq!(text, "0.32 ms, 20.5 ms, 98.3 ms, 184 ms, 1.8 s");
    }

    #[test]
    fn times_are_told_in_two_units_at_most() {
        let now = "2026-01-03T01:02:03Z".parse().unwrap();
        for (time, text) in [
            ("2026-01-03T01:02:00Z", "3 s"),
            ("2026-01-03T00:59:00Z", "3 min"),
            ("2026-01-02T23:00:00Z", "2 h 2 min"),
            ("2026-01-01T00:00:00Z", "2 d 1 h"),
            // The clock went back.
            ("2026-01-04T00:00:00Z", "0 s"),
        ] {
            assert_eq!(since(time, now).unwrap(), text);
        }
        assert_eq!(since("yesterday", now), None);
    }

    #[test]
    fn a_key_says_what_its_number_means() {
        assert_eq!(scalar("spoolBytes", &json!(12_345_678)).unwrap(), "12.3 MB");
        assert_eq!(scalar("oldestUnsentSeconds", &json!(61)).unwrap(), "1 min");
        assert_eq!(scalar("clock", &json!("unset")).unwrap(), "unset");
        assert_eq!(scalar("list", &json!([])), None);
        assert_eq!(spaced("oldestUnsentSeconds"), "oldest unsent");
    }
}
