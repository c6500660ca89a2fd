//! The PROXY protocol, versions 1 and 2: who a connection behind a balancer really comes from.
//!
//! Promises: total and bounded: a header of version 1 has 107 octets at most, one of version 2 what its
//! length says and [`V2_OCTETS_MAX`] at most; what does not parse is an error and never a guess. TLVs of
//! version 2 are walked over; the checksum (PP2_TYPE_CRC32C), when there is one, is held against the
//! octets. Never: a socket, a decision about whom to trust.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Octets of a header of version 1 at most, CRLF included (section 2.1 of the protocol).
pub const V1_OCTETS_MAX: usize = 107;
/// Octets of a header of version 2 at most. The length field would allow 65,551; what balancers send
/// has some hundreds.
pub const V2_OCTETS_MAX: usize = 16 + 4_096;
/// What a header of version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Octets of version 2 before the addresses.
const V2_FIXED: usize = 16;
/// The TLV with the checksum.
const TYPE_CRC32C: u8 = 0x03;

/// What a header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The connection is this client's.
    Client {
        /// Its address.
        source: SocketAddr,
        /// The address that it called.
        destination: SocketAddr,
    },
    /// The balancer speaks for itself (a health check), or cannot say for whom: its own address counts.
    Balancer,
}

/// Why octets are no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// They begin like neither version.
    NoHeader,
    /// They begin well and go on badly.
    Malformed,
    /// The header is longer than we read.
    TooLong,
    /// The checksum is not the one of the octets.
    Checksum,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Fault::NoHeader => "no PROXY header came first",
            Fault::Malformed => "the PROXY header is malformed",
            Fault::TooLong => "the PROXY header is too long",
            Fault::Checksum => "the PROXY header's checksum is wrong",
        })
    }
}

/// How far a header has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// So many octets have to be there before it can be said more; never more than the header has.
    Needs(usize),
    /// The header is whole.
    Whole {
        /// Octets of it.
        octets: usize,
        /// What it says.
        origin: Origin,
    },
}

/// Reads a header from the beginning of `input`. Asking for no more octets than [`Progress::Needs`]
/// tells, a reader never takes an octet behind the header.
///
/// # Errors
/// Why it is none.
pub fn parse(input: &[u8]) -> Result<Progress, Fault> {
    match input.first() {
        None => Ok(Progress::Needs(1)),
        Some(b'P') => v1(input),
        Some(b'\r') => v2(input),
        Some(_) => Err(Fault::NoHeader),
    }
}

fn v1(input: &[u8]) -> Result<Progress, Fault> {
    const BEGIN: &[u8] = b"PROXY ";
    let common = input.len().min(BEGIN.len());
    if input[..common] != BEGIN[..common] {
        return Err(Fault::NoHeader);
    }
    let line_max = &input[..input.len().min(V1_OCTETS_MAX)];
    let Some(end) = line_max.iter().position(|b| *b == b'\n') else {
        // One octet at a time from here on: a header has no length, and what is behind it is not ours.
        return if line_max.len() < V1_OCTETS_MAX {
            Ok(Progress::Needs(input.len() + 1))
        } else {
            Err(Fault::TooLong)
        };
    };
    let line = line_max[..end].strip_suffix(b"\r").ok_or(Fault::Malformed)?;
    let line = std::str::from_utf8(line).map_err(|_| Fault::Malformed)?;
    let origin = v1_origin(line).ok_or(Fault::Malformed)?;
    let octets = end + 1;
    Ok(Progress::Whole { octets, origin })
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 1025 25`; what stands behind UNKNOWN is to be ignored.
fn v1_origin(line: &str) -> Option<Origin> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(Origin::Balancer);
    }
    let (source, destination) = (words.next()?, words.next()?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    if words.next().is_some() {
        return None;
    }
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    Some(Origin::Client {
        source: SocketAddr::new(address(source)?, source_port),
        destination: SocketAddr::new(address(destination)?, destination_port),
    })
}

/// A decimal number without leading zeros, 65535 at most.
fn port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let plain = text == "0" || !text.starts_with('0');
    (digits && plain).then(|| text.parse().ok()).flatten()
}

fn v2(input: &[u8]) -> Result<Progress, Fault> {
    let common = input.len().min(SIGNATURE.len());
    if input[..common] != SIGNATURE[..common] {
        return Err(Fault::NoHeader);
    }
    let Some((fixed, rest)) = input.split_first_chunk::<V2_FIXED>() else {
        return Ok(Progress::Needs(V2_FIXED));
    };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let octets = V2_FIXED + length;
    if octets > V2_OCTETS_MAX {
        return Err(Fault::TooLong);
    }
    let Some(rest) = rest.get(..length) else {
        return Ok(Progress::Needs(octets));
    };
    if fixed[12] >> 4 != 2 {
        return Err(Fault::Malformed);
    }
    let origin = match fixed[12] & 0x0f {
        // LOCAL: whatever the addresses say is to be thrown away.
        0 => Origin::Balancer,
        1 => {
            let (origin, addresses) = v2_origin(fixed[13], rest)?;
            check_tlvs(&input[..octets], V2_FIXED + addresses)?;
            origin
        }
        _ => return Err(Fault::Malformed),
    };
    Ok(Progress::Whole { octets, origin })
}

/// What the address block says, and its octets.
fn v2_origin(family: u8, rest: &[u8]) -> Result<(Origin, usize), Fault> {
    match family {
        // UNSPEC, over anything.
        0x00 => Ok((Origin::Balancer, rest.len())),
        // IPv4, stream.
        0x11 => {
            let a = rest.first_chunk::<12>().ok_or(Fault::Malformed)?;
            let address = |i: usize, p: usize| {
                SocketAddr::from((
                    [a[i], a[i + 1], a[i + 2], a[i + 3]],
                    u16::from_be_bytes([a[p], a[p + 1]]),
                ))
            };
            let (source, destination) = (address(0, 8), address(4, 10));
            Ok((Origin::Client { source, destination }, 12))
        }
        // IPv6, stream.
        0x21 => {
            let a = rest.first_chunk::<36>().ok_or(Fault::Malformed)?;
            let address = |i: usize, p: usize| {
                let mut octets = [0u8; 16];
                octets.copy_from_slice(&a[i..i + 16]);
                SocketAddr::from((octets, u16::from_be_bytes([a[p], a[p + 1]])))
            };
            let (source, destination) = (address(0, 32), address(16, 34));
            Ok((Origin::Client { source, destination }, 36))
        }
        // A Unix socket has no address that says who.
        0x31 if rest.len() >= 216 => Ok((Origin::Balancer, 216)),
        // Datagrams carry no mail.
        _ => Err(Fault::Malformed),
    }
}

/// Walks over the TLVs behind the addresses; they must fill the header to its end.
fn check_tlvs(header: &[u8], begin: usize) -> Result<(), Fault> {
    let mut at = begin;
    while at < header.len() {
        let (kind, length) = match header.get(at..at + 3) {
            Some(&[kind, high, low]) => (kind, usize::from(u16::from_be_bytes([high, low]))),
            _ => return Err(Fault::Malformed),
        };
        let value = header.get(at + 3..at + 3 + length).ok_or(Fault::Malformed)?;
        if kind == TYPE_CRC32C {
            let told: [u8; 4] = value.try_into().map_err(|_| Fault::Malformed)?;
            if u32::from_be_bytes(told) != checksum(header, at + 3) {
                return Err(Fault::Checksum);
            }
        }
        at += 3 + length;
    }
    Ok(())
}

/// CRC32c of the header with its own four octets, at `own`, taken as zero.
fn checksum(header: &[u8], own: usize) -> u32 {
    let octets = header.iter().enumerate();
    let crc = octets.fold(u32::MAX, |crc, (i, octet)| {
        let octet = if (own..own + 4).contains(&i) { 0 } else { *octet };
        (0..8).fold(crc ^ u32::from(octet), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    });
    !crc
}

/// Feeds any octets, whole and as a reader would; for property tests and fuzzing.
///
/// # Panics
/// When a promise is broken.
pub fn fuzz(data: &[u8]) {
    let whole = parse(data);
    if let Ok(Progress::Whole { octets, .. }) = whole {
        assert!(octets <= data.len() && octets <= V2_OCTETS_MAX);
        assert_eq!(parse(&data[..octets]), whole, "what is behind does not matter");
    }
    let mut have = 0;
    let read = loop {
        match parse(&data[..have]) {
            Ok(Progress::Needs(n)) => {
                assert!(
                    n > have && n <= V2_OCTETS_MAX,
                    "a need is more than what is there, and bounded"
                );
                if n > data.len() {
                    break Ok(Progress::Needs(n));
                }
                have = n;
            }
            other => break other,
        }
    };
    match (read, whole) {
        (Ok(Progress::Whole { octets, .. }), _) => {
            assert_eq!(octets, have, "no octet behind the header is asked for");
            assert_eq!(read, whole);
        }
        (Err(_), Ok(Progress::Whole { .. })) => panic!("a whole header was refused while it came in"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client(source: &str, destination: &str) -> Origin {
        Origin::Client {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    fn header_v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut out = SIGNATURE.to_vec();
        out.extend([0x20 | command, family]);
        out.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        out.extend(body);
        out
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 4, 1, 0, 25];

    #[test]
    fn version_one() {
        for (line, origin) in [
            (
                "PROXY TCP4 192.0.2.1 198.51.100.1 1025 25\r\n",
                Some(client("192.0.2.1:1025", "198.51.100.1:25")),
            ),
            (
                "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
                Some(client("[2001:db8::1]:1", "[2001:db8::2]:65535")),
            ),
            ("PROXY UNKNOWN\r\n", Some(Origin::Balancer)),
            ("PROXY UNKNOWN ffff::1 what ever 1 2\r\n", Some(Origin::Balancer)),
            ("PROXY TCP4 2001:db8::1 198.51.100.1 1025 25\r\n", None),
            ("PROXY TCP4 192.0.2.1 198.51.100.1 1025 65536\r\n", None),
            ("PROXY TCP4 192.0.2.1 198.51.100.1 01025 25\r\n", None),
            ("PROXY TCP4 192.0.2.1 198.51.100.1 1025\r\n", None),
            ("PROXY TCP4 192.0.2.1 198.51.100.1 1025 25 9\r\n", None),
            ("PROXY TCP4 192.0.2.1 198.51.100.1 1025 25\n", None),
            ("PROXY UDP4 192.0.2.1 198.51.100.1 1025 25\r\n", None),
        ] {
            let octets = line.len();
            let told = parse(line.as_bytes());
            match origin {
                Some(origin) => assert_eq!(told, Ok(Progress::Whole { octets, origin }), "{line:?}"),
                None => assert_eq!(told, Err(Fault::Malformed), "{line:?}"),
            }
        }
        assert_eq!(parse(b"EHLO x\r\n"), Err(Fault::NoHeader));
        assert_eq!(parse(b"PROXX"), Err(Fault::NoHeader));
        let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 200], b"\r\n"].concat();
        assert_eq!(parse(&long), Err(Fault::TooLong));
    }

    #[test]
    fn version_two() {
        let good = header_v2(1, 0x11, &V4);
        let origin = client("192.0.2.1:1025", "198.51.100.1:25");
        assert_eq!(parse(&good), Ok(Progress::Whole { octets: 28, origin }));
        let mut v6 = [0u8; 36];
        (v6[15], v6[31], v6[33], v6[35]) = (1, 2, 7, 25);
        let origin = client("[::1]:7", "[::2]:25");
        assert_eq!(
            parse(&header_v2(1, 0x21, &v6)),
            Ok(Progress::Whole { octets: 52, origin })
        );
        for (header, octets) in [
            (header_v2(0, 0x11, &V4), 28),
            (header_v2(0, 0, b""), 16),
            (header_v2(1, 0, b"any"), 19),
            (header_v2(1, 0x31, &[0; 216]), 232),
        ] {
            let origin = Origin::Balancer;
            assert_eq!(parse(&header), Ok(Progress::Whole { octets, origin }));
        }
        for header in [
            header_v2(1, 0x11, &V4[..11]),
            header_v2(2, 0x11, &V4),
            header_v2(1, 0x12, &V4),
            header_v2(1, 0x31, &[0; 215]),
            header_v2(1, 0x11, &[&V4[..], &[4, 0]].concat()),
            header_v2(1, 0x11, &[&V4[..], &[4, 0, 2, 1]].concat()),
        ] {
            assert_eq!(parse(&header), Err(Fault::Malformed));
        }
        assert_eq!(parse(&header_v2(1, 0, &[0; 5_000])), Err(Fault::TooLong));
    }

    #[test]
    fn the_checksum_is_held_against_the_octets() {
        let with = |crc: [u8; 4]| {
            header_v2(
                1,
                0x11,
                &[&V4[..], &[4, 0, 1, 9], &[TYPE_CRC32C, 0, 4], &crc].concat(),
            )
        };
        let right = checksum(&with([0; 4]), 35);
        assert!(parse(&with(right.to_be_bytes())).is_ok());
        assert_eq!(parse(&with([1, 2, 3, 4])), Err(Fault::Checksum));
        // The check value of CRC-32C.
        assert_eq!(checksum(b"123456789", 100), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn any_octets(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz(&data);
        }

        #[test]
        fn any_octets_behind_a_beginning(which in 0usize..4, data in proptest::collection::vec(any::<u8>(), 0..300)) {
            let begin: [&[u8]; 4] = [b"PROXY ", b"PROXY TCP4 ", &SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x20"];
            fuzz(&[begin[which], &data].concat());
        }

        #[test]
        fn what_a_balancer_writes_is_read(a in any::<[u8; 4]>(), b in any::<[u8; 16]>(), p in any::<u16>(), behind in proptest::collection::vec(any::<u8>(), 0..20)) {
            let (four, six) = (Ipv4Addr::from(a), Ipv6Addr::from(b));
            for line in [format!("PROXY TCP4 {four} {four} {p} 25\r\n"), format!("PROXY TCP6 {six} {six} {p} 25\r\n")] {
                let all = [line.as_bytes(), &behind].concat();
                fuzz(&all);
                let octets = line.len();
                let is_whole = matches!(parse(&all), Ok(Progress::Whole { octets: n, origin: Origin::Client { source, .. } }) if n == octets && source.port() == p);
                prop_assert!(is_whole, "{line}");
            }
        }
    }
}
