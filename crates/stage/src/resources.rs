//! Memory and disk: the amounts that the machine has, and the amounts that the process used.

use std::path::Path;

use crate::{Error, Kind, Result};

/// The largest resident memory of this process so far, in bytes, where the system reports it (Linux).
pub(crate) fn peak_memory() -> Option<u64> {
    kilobytes("/proc/self/status", "VmHWM:")
}

/// Memory that a new allocation can get without swapping, in bytes, where the system reports it (Linux). The least of
/// the machine's available memory and the rest under control groups, the address-space limit and the batch system.
fn available_memory() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = left_in_groups(Path::new("/sys/fs/cgroup"), &groups);
    let used = |field: &str| kilobytes("/proc/self/status", field).unwrap_or(0);
    // The limit of `ulimit -v`. Without a limit the file says "unlimited", which does not parse as a number.
    let space = number(Path::new("/proc/self/limits"), "Max address space");
    let space = space.map(|limit| limit.saturating_sub(used("VmSize:")));
    let job = std::env::var("SLURM_MEM_PER_NODE").ok().and_then(|megabytes| megabytes.parse::<u64>().ok());
    let job = job.map(|megabytes| megabytes.saturating_mul(1 << 20).saturating_sub(used("VmRSS:")));
    [kilobytes("/proc/meminfo", "MemAvailable:"), groups, space, job].into_iter().flatten().min()
}

/// Memory left by the limits of control groups below `root`. `groups` is the process's list of its groups, of version 2
/// (`0::/path`) or of version 1 (`4:memory:/path`).
fn left_in_groups(root: &Path, groups: &str) -> Option<u64> {
    let left = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let path = path.trim_start_matches('/');
        match controllers {
            "" => least_left(root, &root.join(path), ["memory.max", "memory.current"]),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                let root = root.join("memory");
                least_left(&root, &root.join(path), ["memory.limit_in_bytes", "memory.usage_in_bytes"])
            }
            _ => None,
        }
    });
    left.min()
}

/// The least memory that `group` or a group above it, up to `root`, leaves: its limit, minus used memory, not counting
/// file pages that the system can drop.
fn least_left(root: &Path, group: &Path, [limit, used]: [&str; 2]) -> Option<u64> {
    let left = group.ancestors().take_while(|folder| folder.starts_with(root)).filter_map(|folder| {
        // A group without a limit says "max", which does not parse as a number.
        let (limit, used) = (number(&folder.join(limit), "")?, number(&folder.join(used), "")?);
        let unused = ["inactive_file ", "total_inactive_file "];
        let unused = unused.iter().find_map(|name| number(&folder.join("memory.stat"), name)).unwrap_or(0);
        Some(limit.saturating_sub(used.saturating_sub(unused)))
    });
    left.min()
}

/// The number after `name` on a line of a file.
fn number(file: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn kilobytes(file: &str, name: &str) -> Option<u64> {
    Some(number(Path::new(file), name)? * 1024)
}

/// Refuses work whose estimate exceeds the available memory; `knob` says how to make the work smaller.
pub fn require_memory(bytes: u64, what: &str, knob: &str) -> Result<()> {
    tracing::debug!("{what}: about {} of memory", human(bytes));
    match available_memory() {
        Some(available) if bytes > available => {
            let (needed, available) = (human(bytes), human(available));
            let message = format!("{what} needs about {needed} of memory, {available} are available");
            Err(Error::new(Kind::Resource, message).hint(knob))
        }
        _ => Ok(()),
    }
}

/// Refuses work whose output does not fit on the disk that holds `folder`.
pub fn require_disk(folder: &Path, bytes: u64, what: &str, knob: &str) -> Result<()> {
    let existing = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let disk = rustix::fs::statvfs(existing).map_err(|e| Error::io(existing, e.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    tracing::debug!("{what}: about {} on disk, {} are free", human(bytes), human(free));
    if bytes > free {
        let message = format!("{what} needs about {}, {} are free on its disk", human(bytes), human(free));
        return Err(Error::new(Kind::Resource, message).at(folder).hint(knob));
    }
    Ok(())
}

/// The size in bytes of all files in `folder` and below it; 0 if there are none.
pub fn occupied(folder: &Path) -> u64 {
    let files = crate::files::below(folder).unwrap_or_default();
    files.iter().filter_map(|path| path.symlink_metadata().ok()).map(|file| file.len()).sum()
}

/// Formats `1536` as `1.5 KiB`.
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

/// Formats a time: `0.8 s`, `42 s`, `3 min 20 s`, `2 h 05 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
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
    fn durations_read_well() {
        let written = ["0.8 s", "12 s", "3 min 20 s", "2 h 00 min", "2 h 05 min"];
        assert_eq!([0.84, 12.3, 200.0, 7200.0, 7500.0].map(duration), written);
    }

    #[test]
    fn the_tightest_control_group_counts() {
        let root = tempfile::tempdir().unwrap();
        let (new, old) = ("9:x:/\n0::/slurm/job/step\n", "5:cpu,memory:/slurm/job\n1:name=x:/\n");
        for (file, text, groups, left) in [
            ("slurm/job/step/memory.max", "max\n", new, None),
            ("slurm/job/step/memory.current", "100\n", new, None),
            ("slurm/job/memory.max", "1000\n", new, None),
            ("slurm/job/memory.current", "700\n", new, Some(300)),
            ("slurm/job/memory.stat", "anon 200\ninactive_file 450\n", new, Some(750)),
            // Version 1.
            ("memory/slurm/job/memory.limit_in_bytes", "1000\n", old, None),
            ("memory/slurm/job/memory.usage_in_bytes", "300\n", old, Some(700)),
            ("memory/slurm/job/memory.stat", "total_inactive_file 100\n", old, Some(800)),
            ("memory/slurm/job/memory.stat", "total_inactive_file 100\n", "8:memory:/old\n", None),
        ] {
            std::fs::create_dir_all(root.path().join(file).parent().unwrap()).unwrap();
            std::fs::write(root.path().join(file), text).unwrap();
            assert_eq!(left_in_groups(root.path(), groups), left, "{file}");
        }
    }

    #[test]
    fn numbers_stand_behind_their_names() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "Max cpu time  unlimited  seconds\nMax address space  4096  unlimited bytes\n";
        std::fs::write(&file, text).unwrap();
        let names = ["Max address space", "Max cpu time", "Max files"];
        assert_eq!(names.map(|name| number(file.path(), name)), [Some(4096), None, None]);
    }

    #[test]
    fn a_folder_occupies_what_its_files_do() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("below")).unwrap();
        std::fs::write(root.path().join("a"), "12345").unwrap();
        std::fs::write(root.path().join("below/b"), "123").unwrap();
        assert_eq!((occupied(root.path()), occupied(&root.path().join("absent"))), (8, 0));
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
