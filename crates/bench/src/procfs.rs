//! What the kernel tells about processes and devices under /proc, read by pure functions.
//!
//! Promises: a line of another shape gives nothing rather than a wrong figure.
//! Never: opens a file (the callers do).

use std::time::Duration;

/// Ticks a second of the times in /proc/PID/stat: fixed at 100 for user space on Linux.
const TICKS_PER_SECOND: u64 = 100;

/// One process, as /proc/PID/stat has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The process id.
    pub pid: u32,
    /// Its parent.
    pub parent: u32,
    /// CPU time of the process and of the children that it has waited for.
    pub cpu: Duration,
}

/// Reads the line of /proc/PID/stat. The name in brackets may hold anything, brackets too.
pub fn stat(line: &str) -> Option<Stat> {
    let (pid, rest) = line.split_once(" (")?;
    let (_, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The field after the brackets is number 3: utime, stime, cutime and cstime are 14 to 17.
    let ticks: u64 = fields
        .get(11..15)?
        .iter()
        .map(|f| f.parse::<u64>().ok())
        .sum::<Option<u64>>()?;
    Some(Stat {
        pid: pid.parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        cpu: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND),
    })
}

/// All of `all` that descend from `root`, itself included.
pub fn family(all: &[Stat], root: u32) -> Vec<Stat> {
    let mut members = vec![root];
    let mut at = 0;
    while at < members.len() {
        let parent = members[at];
        members.extend(all.iter().filter(|s| s.parent == parent).map(|s| s.pid));
        at += 1;
    }
    all.iter().filter(|s| members.contains(&s.pid)).copied().collect()
}

/// A line of the shape `Name:   123 kB`, in octets.
pub fn kib_line(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|l| l.strip_prefix(name).is_some_and(|r| r.starts_with(':')))?;
    let value = line.split_once(':')?.1.trim().strip_suffix(" kB")?;
    Some(value.trim().parse::<u64>().ok()? * 1024)
}

/// A line of the shape `name 123`, as control groups have it.
pub fn plain_line(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// What a device has written since it came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceCount {
    /// Octets.
    pub octets: u64,
    /// Cache flushes: what a sync ends in.
    pub flushes: u64,
}

/// The line of a device in /proc/diskstats, found by its numbers.
pub fn diskstats(text: &str, major: u32, minor: u32) -> Option<DeviceCount> {
    let line: Vec<&str> = text
        .lines()
        .map(|l| l.split_ascii_whitespace().collect::<Vec<_>>())
        .find(|f| {
            f.first().and_then(|f| f.parse().ok()) == Some(major)
                && f.get(1).and_then(|f| f.parse().ok()) == Some(minor)
        })?;
    // Sectors are of 512 octets here whatever the device; flushes are there since Linux 5.5.
    Some(DeviceCount {
        octets: line.get(9)?.parse::<u64>().ok()? * 512,
        flushes: line.get(18).and_then(|f| f.parse().ok()).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let line = "42 (a) b (c)) S 7 42 42 0 -1 4194560 100 0 0 0 150 50 20 30 20 0 4 0 100 1000 200";
        let read = stat(line).unwrap();
        assert_eq!((read.pid, read.parent), (42, 7));
        assert_eq!(read.cpu, Duration::from_millis(2500));
        assert_eq!(stat("42 (short) S 7"), None);
        assert_eq!(stat(""), None);
    }

    #[test]
    fn a_family_is_found_whatever_the_order() {
        let one = |pid, parent| Stat {
            pid,
            parent,
            cpu: Duration::ZERO,
        };
        let all = [one(9, 8), one(1, 0), one(8, 5), one(5, 1), one(6, 1)];
        let pids: Vec<u32> = family(&all, 5).iter().map(|s| s.pid).collect();
        assert_eq!(pids, [9, 8, 5]);
        assert_eq!(family(&all, 77), []);
    }

    #[test]
    fn memory_lines() {
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t     512 kB\n";
        assert_eq!(kib_line(status, "RssAnon"), Some(512 * 1024));
        assert_eq!(kib_line(status, "Rss"), None);
        assert_eq!(plain_line("cache 5\ntotal_rss 77\n", "total_rss"), Some(77));
        assert_eq!(plain_line("total_rss_huge 5\n", "total_rss"), None);
    }

    #[test]
    fn a_device_is_found_by_its_numbers() {
        let text = "   7       0 loop0 110 0 4204 21 7 0 6 6 0 28 33 0 0 0 0 9 5\n \
                     254       0 vda 28 74 11 60 65 72 322102640 18 0 33 80 43 87 22 75 14241 16\n";
        let count = diskstats(text, 7, 0).unwrap();
        assert_eq!(
            count,
            DeviceCount {
                octets: 6 * 512,
                flushes: 9
            }
        );
        assert_eq!(diskstats(text, 254, 0).unwrap().octets, 322_102_640 * 512);
        assert_eq!(diskstats(text, 8, 0), None);
    }
}
