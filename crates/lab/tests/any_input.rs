//! Whatever a zone file or a question holds, it is answered or refused.
#![allow(clippy::unwrap_used)]

use lab::dns::{Zones, answer};
use proptest::prelude::*;

fn zone_words() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("@".to_owned()),
        Just("IN".to_owned()),
        Just("A".to_owned()),
        Just("MX".to_owned()),
        Just("TXT".to_owned()),
        Just("SOA".to_owned()),
        Just("CNAME".to_owned()),
        Just("10".to_owned()),
        Just("127.0.0.1".to_owned()),
        Just("$ORIGIN".to_owned()),
        Just("$TTL".to_owned()),
        Just("a.test.".to_owned()),
        Just("*.a.test.".to_owned()),
        Just("(".to_owned()),
        Just(")".to_owned()),
        Just("\"".to_owned()),
        Just("\\".to_owned()),
        Just("\n".to_owned()),
        Just(" ".to_owned()),
        "\\PC{0,6}",
    ];
    proptest::collection::vec(word, 0..40).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn zone_files(text in prop_oneof![zone_words(), any::<String>()]) {
        if let Ok(zones) = Zones::parse(&text) {
            // What was read can be looked up without harm.
            for origin in zones.origins().map(str::to_owned).collect::<Vec<_>>() {
                let _ = zones.lookup(&origin, "A".parse().unwrap());
                let _ = zones.lookup(&format!("x.{origin}"), "TXT".parse().unwrap());
            }
        }
    }

    #[test]
    fn questions(octets in proptest::collection::vec(any::<u8>(), 0..80), at in 0usize..40, bit in 0u8..8) {
        let zones = Zones::parse("$ORIGIN a.test.\n@ A 192.0.2.1\n* TXT \"x\"\n").unwrap();
        let _ = answer(&zones, &octets, true);
        // A good question with one bit turned.
        let mut question = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x04test\x00\x00\x01\x00\x01".to_vec();
        let at = at % question.len();
        question[at] ^= 1 << bit;
        for over_udp in [true, false] {
            let (reply, _) = answer(&zones, &question, over_udp);
            prop_assert!(reply.is_none_or(|r| r.len() <= 512 || !over_udp));
        }
    }
}
