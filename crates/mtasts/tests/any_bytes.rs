//! Any octets are answered, by the parser of the record and by that of the policy; and what is written
//! is read back as the same.
#![allow(clippy::unwrap_used)]

use mail::Domain;
use mtasts::{Mode, Pattern, Policy, policy, record};
use proptest::prelude::*;

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9]{1,10}(-[a-z0-9]{1,4})?(\\.[a-z]{1,6}){0,3}"
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Enforce), Just(Mode::Testing), Just(Mode::None)]
}

proptest! {
    #[test]
    fn any_octets_are_answered(data in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        mtasts::fuzz(&data);
    }

    /// Octets that look like policies and records.
    #[test]
    fn almost_policies_are_answered(parts in proptest::collection::vec(prop_oneof![
        Just("version: STSv1"), Just("mode: enforce"), Just("mode:none"), Just("mx: a.example"),
        Just("mx:*.b.example"), Just("mx: \u{fc}.example"), Just("max_age: 99999999999"), Just("max_age:60"),
        Just("\r\n"), Just("\n"), Just("\r"), Just(":"), Just("\0"), Just("v=STSv1;"), Just(" id=1"), Just(";"),
    ], 0..40)) {
        mtasts::fuzz(parts.concat().as_bytes());
    }

    #[test]
    fn a_policy_is_read_as_it_is_written(
        mode in mode(),
        mx in proptest::collection::vec((any::<bool>(), name()), 1..20),
        max_age_secs in 0..=policy::MAX_AGE_SECS_MAX,
        crlf in any::<bool>(),
        more in "[a-z_]{1,8}: ?\\PC{0,20}",
    ) {
        let star = |is_wildcard| if is_wildcard { "*." } else { "" };
        let mx: Vec<Pattern> =
            mx.iter().map(|(wild, name)| Pattern::parse(&format!("{}{name}", star(*wild))).unwrap()).collect();
        let policy = Policy { mode, mx, max_age_secs };
        let mut body = policy.to_body();
        let key = more.split(':').next().unwrap();
        if !["version", "mode", "mx", "max_age"].contains(&key) {
            body.push_str(&more);
        }
        if !crlf {
            body = body.replace("\r\n", "\n");
        }
        prop_assert_eq!(Policy::parse(body.as_bytes()), Ok(policy));
    }

    /// A wildcard stands for one label, at the front.
    #[test]
    fn what_a_pattern_matches(host in name(), label in "[a-z]{1,5}") {
        let host = Domain::parse(&host).unwrap();
        let exact = Pattern::parse(host.as_str()).unwrap();
        let wild = Pattern::parse(&format!("*.{host}")).unwrap();
        let below = host.prefixed(&label).unwrap();
        let deep = below.prefixed(&label).unwrap();
        prop_assert!(exact.matches(&host) && !exact.matches(&below));
        prop_assert!(wild.matches(&below) && !wild.matches(&host) && !wild.matches(&deep));
    }

    #[test]
    fn an_id_is_found_among_other_texts(id in "[a-zA-Z0-9]{1,32}", other in "[ -~]{0,30}", at in 0..2_usize) {
        prop_assume!(!other.starts_with("v=STSv1"));
        let mut texts = vec![other];
        texts.insert(at, format!("v=STSv1; id={id};"));
        let found = record::find(&texts).unwrap().unwrap();
        prop_assert_eq!(found.as_str(), id);
    }
}
