//! The users of this machine: names and numbers, as the system's table has them.

use std::io::Read as _;
use std::process::Command;

/// Octets of the table at most.
const TABLE_OCTETS_MAX: u64 = 16 * 1024 * 1024;

/// A line of the table.
struct User {
    name: String,
    number: u32,
    full_name: String,
}

/// The number of the user whose program this is.
pub fn own_number() -> u32 {
    rustix::process::getuid().as_raw()
}

/// The number of a user named by name or number.
pub fn number(name: &str) -> Option<u32> {
    name.parse()
        .ok()
        .or_else(|| find(name, |u| u.name == name).map(|u| u.number))
}

/// The name of a user; the number where it has none.
pub fn name(number: u32) -> String {
    find(&number.to_string(), |u| u.number == number).map_or_else(|| number.to_string(), |u| u.name)
}

/// The full name of a user; empty where it has none.
pub fn full_name(number: u32) -> String {
    find(&number.to_string(), |u| u.number == number).map_or_else(String::new, |u| u.full_name)
}

/// Looks into the local table, then asks whatever else the system knows.
fn find(key: &str, is: impl Fn(&User) -> bool) -> Option<User> {
    let mut table = String::new();
    let read =
        std::fs::File::open("/etc/passwd").map(|f| f.take(TABLE_OCTETS_MAX).read_to_string(&mut table));
    if matches!(read, Ok(Ok(_)))
        && let Some(user) = table.lines().filter_map(line).find(|u| is(u))
    {
        return Some(user);
    }
    if key.starts_with('-') {
        return None;
    }
    let asked = Command::new("getent").args(["passwd", key]).output().ok()?;
    let told = String::from_utf8(asked.stdout).ok()?;
    told.lines().filter_map(line).find(|u| is(u))
}

fn line(text: &str) -> Option<User> {
    let fields: Vec<&str> = text.split(':').collect();
    let [name, _, number, _, gecos, ..] = fields[..] else {
        return None;
    };
    Some(User {
        name: name.to_owned(),
        number: number.parse().ok()?,
        full_name: gecos.split(',').next().unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_table() {
        let user = line("www-data:x:33:33:Web, Room 1:/var/www:/usr/sbin/nologin").unwrap();
        assert_eq!(
            (user.name.as_str(), user.number, user.full_name.as_str()),
            ("www-data", 33, "Web")
        );
        assert!(line("nonsense").is_none() && line("a:x:b:1:c").is_none());
        assert_eq!(number("4711"), Some(4711));
        assert_eq!(number("no-such-user-here"), None);
    }
}
