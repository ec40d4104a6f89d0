//! Numbers in a form for people.

use serde::Deserialize;
use serde_json::Value;

pub(crate) use dsom_import::report::grouped;
pub(crate) use stage::resources::duration as seconds;

/// A fraction in percent with two digits: `41.23`.
pub(crate) fn percent(fraction: f64) -> String {
    format!("{:.2}", 100.0 * fraction)
}

/// A share in percent with one digit and the percent sign, without a line break: `41.2 %`.
pub(crate) fn share(fraction: f64) -> String {
    format!("{:.1}\u{a0}%", 100.0 * fraction)
}

/// A number with three or four digits.
pub(crate) fn short(value: f64) -> String {
    let digits = match value.abs() {
        0.0 | 100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// The day and minute of an RFC 3339 time: `2026-11-24 23:35`.
pub(crate) fn minute(time: &str) -> String {
    time.get(..16).unwrap_or(time).replace('T', " ")
}

/// A count with its noun: `1 triple`, `2 triples`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// The count in a JSON value; none for any other value.
pub(crate) fn count(value: &Value) -> Option<usize> {
    usize::deserialize(value).ok()
}

/// The text, or a dash if it is missing.
pub(crate) fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "–".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(minute("2026-11-24T23:35:12.345Z"), "2026-11-24 23:35");
        assert_eq!([0, 1, 1234].map(|n| counted(n, "triple")), ["0 triples", "1 triple", "1,234 triples"]);
        let shortened = [0.0, 0.1234, 2.5, 41.26, 1234.5, -0.5].map(short);
        assert_eq!(shortened, ["0", "0.123", "2.5", "41.3", "1234", "-0.5"]);
    }
}
