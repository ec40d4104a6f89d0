//! Numbers as people read them.

pub use crate::chart::short;
pub use dsom_import::report::grouped;

/// A fraction in percent, two digits: `41.23`.
pub fn percent(fraction: f64) -> String {
    format!("{:.2}", 100.0 * fraction)
}

/// A share in percent with its sign, one digit, never broken: `41.2 %`.
pub fn share(fraction: f64) -> String {
    format!("{:.1}\u{a0}%", 100.0 * fraction)
}

/// A time: `0.8 s`, `42 s`, `3 min 20 s`, `2 h 05 min`.
pub fn seconds(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

/// The day and minute of an RFC 3339 time: `2026-11-24 23:35`.
pub fn minute(time: &str) -> String {
    time.chars().take(16).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

/// The beginning of a digest, enough to tell files apart.
pub fn short_digest(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// `1 triple`, `2 triples`.
pub fn counted(count: usize, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        assert_eq!([0.84, 42.4, 200.0, 7500.0].map(seconds), ["0.8 s", "42 s", "3 min 20 s", "2 h 05 min"]);
        assert_eq!(minute("2026-11-24T23:35:12.345Z"), "2026-11-24 23:35");
    }

    #[test]
    fn nouns_follow_their_numbers() {
        assert_eq!([0, 1, 1234].map(|n| counted(n, "triple")), ["0 triples", "1 triple", "1,234 triples"]);
    }
}
