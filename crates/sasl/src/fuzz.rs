//! Drives exchanges with any bytes and checks what must hold for all of them.
//!
//! Called by property tests and by fuzz targets. A broken promise is a panic.

use crate::{Answer, Channel, Exchange, Fault, Keys, Mechanism, Mechanisms, Request, Salted, Step};
use mail::Secret;

/// Challenges of an exchange at most.
const CHALLENGES_MAX: usize = 3;

/// One exchange. The first octet chooses the mechanism, the second the channel; the rest are the
/// client's lines, parted by LF.
///
/// # Panics
/// When a promise is broken: an exchange without end, a login without the secret, a challenge that
/// does not survive base64.
pub fn exchange(data: &[u8]) {
    let Some((choice, rest)) = data.split_first_chunk::<2>() else {
        return;
    };
    let mechanism = Mechanism::ALL[usize::from(choice[0]) % Mechanism::ALL.len()];
    let channel = Channel {
        exporter: (choice[1] & 1 != 0).then_some([choice[1]; 32]),
        end_point: (choice[1] & 2 != 0).then(|| vec![choice[1]; 32]),
        has_certificate: choice[1] & 4 != 0,
    };
    let all: Mechanisms = Mechanism::ALL.into_iter().collect();
    let offered = all.on(&channel);
    let (exchange, prompt) = Exchange::<String, ()>::start(mechanism, offered, &channel);
    assert!(prompt.is_ascii());
    let mut lines = rest.split(|b| *b == b'\n');
    let mut step = exchange.initial(lines.next().unwrap_or_default());
    let mut challenges = 0;
    loop {
        step = match step {
            Step::Challenge(exchange, octets) => {
                challenges += 1;
                assert!(challenges <= CHALLENGES_MAX, "an exchange without end");
                let line = crate::encode(&octets);
                assert_eq!(crate::decode(line.as_bytes()).as_deref(), Some(&octets[..]));
                match lines.next() {
                    Some(line) => exchange.line(line),
                    None => return,
                }
            }
            Step::Ask(asking, request) => asking.answer(answer(&request, choice[1])),
            Step::Failed(fault, _) => {
                assert_ne!(fault, Fault::Internal);
                return;
            }
            Step::Accepted(user) => {
                assert!(!user.is_empty(), "a login of nobody");
                return;
            }
            Step::Refused(()) => return,
        };
    }
}

fn answer(request: &Request, choice: u8) -> Answer<String, ()> {
    match request {
        Request::Salt { user, .. } => {
            assert!(!user.is_empty() && !user.contains('\0'));
            Answer::Salted(Salted {
                salt: vec![choice; 16],
                iterations: 1,
                nonce: "server".to_owned(),
            })
        }
        Request::Proof { user, proof, .. } => {
            let keys = Keys::derive(proof.hash, &Secret::new("secret"), &[choice; 16], 1);
            match proof.verify(&keys) {
                Some(signature) => Answer::Accepted(user.clone(), Some(signature)),
                None => Answer::Refused(()),
            }
        }
        request => match request.user() {
            Some(user) if choice & 8 != 0 => Answer::Accepted(user.to_owned(), None),
            _ => Answer::Refused(()),
        },
    }
}
