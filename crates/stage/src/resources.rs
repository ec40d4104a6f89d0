//! What the machine has, and what the process used.

use std::path::Path;

use crate::{Error, Kind, Result};

/// The largest resident memory of this process so far, in bytes, where the system tells (Linux).
pub fn peak_memory() -> Option<u64> {
    kilobytes("/proc/self/status", "VmHWM:")
}

/// Memory that a new allocation could get without swapping, in bytes, where the system tells (Linux).
pub fn available_memory() -> Option<u64> {
    kilobytes("/proc/meminfo", "MemAvailable:")
}

fn kilobytes(file: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Refuses work whose estimate exceeds the memory that is there; `knob` says what would make it smaller.
pub fn require_memory(bytes: u64, what: &str, knob: &str) -> Result<()> {
    tracing::debug!("{what}: about {} of memory", human(bytes));
    match available_memory() {
        Some(available) if bytes > available => Err(Error::new(
            Kind::Resource,
            format!("{what} needs about {} of memory, {} are available", human(bytes), human(available)),
        )
        .hint(knob)),
        _ => Ok(()),
    }
}

/// Refuses work whose output would not fit on the disk that holds `folder`.
pub fn require_disk(folder: &Path, bytes: u64, what: &str, knob: &str) -> Result<()> {
    let existing = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    let free = fs4::available_space(existing).map_err(|e| Error::io(existing, e))?;
    tracing::debug!("{what}: about {} on disk, {} are free", human(bytes), human(free));
    if bytes > free {
        let message = format!("{what} needs about {}, {} are free on its disk", human(bytes), human(free));
        return Err(Error::new(Kind::Resource, message).at(folder).hint(knob));
    }
    Ok(())
}

/// `1536` as `1.5 KiB`.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!(human(12), "12 B");
        assert_eq!(human(1536), "1.5 KiB");
        assert_eq!(human(3 << 30), "3.0 GiB");
    }

    #[test]
    fn the_impossible_is_refused() {
        let error = require_disk(Path::new("not/there/yet"), u64::MAX, "the cache", "store fewer teachers");
        assert_eq!(error.unwrap_err().kind(), Kind::Resource);
        if available_memory().is_some() {
            assert!(require_memory(u64::MAX, "training", "lower `batch`").is_err());
        }
        assert!(require_memory(1, "training", "lower `batch`").is_ok());
    }
}
