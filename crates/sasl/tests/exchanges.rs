//! Whole exchanges: the examples of the RFCs, every mechanism with its own client, any bytes.
#![allow(clippy::unwrap_used)]

use mail::Secret;
use proptest::prelude::*;
use sasl::client::{Bind, Scram};
use sasl::{
    Answer, Binding, Channel, Exchange, Fault, Hash, Keys, Mechanism, Mechanisms, Request, Salted, Step,
};

type Login = Exchange<String, &'static str>;
type LoginStep = Step<String, &'static str>;

fn all() -> Mechanisms {
    Mechanism::ALL.into_iter().collect()
}

fn channel() -> Channel {
    Channel {
        exporter: Some([9; 32]),
        end_point: Some(vec![8; 32]),
        has_certificate: false,
    }
}

fn start(mechanism: Mechanism, channel: &Channel) -> Login {
    Exchange::start(mechanism, all().on(channel), channel).0
}

fn challenge(step: LoginStep) -> (Login, String) {
    match step {
        Step::Challenge(exchange, octets) => (exchange, String::from_utf8(octets).unwrap()),
        other => panic!("no challenge: {other:?}"),
    }
}

fn fault(step: LoginStep) -> Fault {
    match step {
        Step::Failed(fault, _) => fault,
        other => panic!("not failed: {other:?}"),
    }
}

/// Answers the requests of SCRAM for the user `user` with the password `pencil`.
fn answer(request: Request, salted: &Salted) -> Answer<String, &'static str> {
    match request {
        Request::Salt { .. } => Answer::Salted(salted.clone()),
        Request::Proof { user, proof, .. } => {
            let password = Secret::new("pencil");
            let keys = Keys::derive(proof.hash, &password, &salted.salt, salted.iterations);
            match proof.verify(&keys).filter(|_| user == "user") {
                Some(signature) => Answer::Accepted(user, Some(signature)),
                None => Answer::Refused("wrong"),
            }
        }
        other => panic!("{other:?}"),
    }
}

fn ask(step: LoginStep, salted: &Salted) -> LoginStep {
    match step {
        Step::Ask(asking, request) => asking.answer(answer(request, salted)),
        other => other,
    }
}

fn example(mechanism: Mechanism, salted: &Salted, texts: [&str; 4]) {
    let [first, ours, last, signature] = texts;
    let exchange = start(mechanism, &Channel::default());
    let (exchange, said) = challenge(ask(exchange.response(first.as_bytes()), salted));
    assert_eq!(said, ours);
    let (exchange, said) = challenge(ask(exchange.response(last.as_bytes()), salted));
    assert_eq!(said, signature);
    assert!(matches!(exchange.response(b""), Step::Accepted(user) if user == "user"));
}

#[test]
fn the_example_of_rfc_5802_section_5() {
    let salted = Salted {
        salt: sasl::decode(b"QSXCR+Q6sek8bf92").unwrap(),
        iterations: 4096,
        nonce: "3rfcNHYJY1ZVvWVs7j".to_owned(),
    };
    let texts = [
        "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
        "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
        "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    ];
    example(Mechanism::ScramSha1, &salted, texts);
    let client = Scram::new(
        Hash::Sha1,
        "user",
        Secret::new("pencil"),
        "fyko+d2lbbFgONRv9qkxdawL",
        Bind::Cannot,
        &Channel::default(),
    );
    assert_eq!(client.first(), texts[0]);
    let (proven, last) = client.last(texts[1].as_bytes()).unwrap();
    assert_eq!(last, texts[2]);
    assert!(proven.is_right(texts[3].as_bytes()));
    assert!(!proven.is_right(b"v=AAAA"));
}

#[test]
fn the_example_of_rfc_7677_section_3() {
    let salted = Salted {
        salt: sasl::decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(),
        iterations: 4096,
        nonce: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned(),
    };
    example(
        Mechanism::ScramSha256,
        &salted,
        [
            "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ],
    );
}

/// Runs our client against our server; the channels of the two may differ.
fn run(
    mechanism: Mechanism,
    password: &str,
    bind: Bind,
    theirs: &Channel,
    ours: &Channel,
) -> Result<(), &'static str> {
    let (hash, _) = mechanism.scram().unwrap();
    let salted = Salted {
        salt: b"0123456789abcdef".to_vec(),
        iterations: 4096,
        nonce: "theserverspart".to_owned(),
    };
    let client = Scram::new(
        hash,
        "user",
        Secret::new(password),
        "theclientspart",
        bind,
        theirs,
    );
    let first = client.first();
    let mut step = ask(start(mechanism, ours).response(first.as_bytes()), &salted);
    let mut client = Some(client);
    let mut proven = None;
    loop {
        step = match step {
            Step::Challenge(exchange, octets) => match client.take() {
                Some(client) => {
                    let (p, last) = client.last(&octets).unwrap();
                    proven = Some(p);
                    ask(exchange.response(last.as_bytes()), &salted)
                }
                None => {
                    assert!(proven.as_ref().unwrap().is_right(&octets));
                    exchange.response(b"")
                }
            },
            Step::Accepted(_) => return Ok(()),
            Step::Refused(why) => return Err(why),
            Step::Failed(Fault::Channel, _) => return Err("channel"),
            Step::Failed(Fault::Downgrade, _) => return Err("downgrade"),
            other => panic!("{other:?}"),
        };
    }
}

#[test]
fn binding() {
    use Mechanism::{ScramSha1, ScramSha1Plus, ScramSha256, ScramSha256Plus};
    let (open, bound) = (Channel::default(), channel());
    let other = Channel {
        exporter: Some([1; 32]),
        end_point: Some(vec![1; 32]),
        has_certificate: false,
    };
    for plus in [ScramSha1Plus, ScramSha256Plus] {
        for kind in [Binding::Exporter, Binding::EndPoint] {
            assert_eq!(run(plus, "pencil", Bind::By(kind), &bound, &bound), Ok(()));
            assert_eq!(run(plus, "pen", Bind::By(kind), &bound, &bound), Err("wrong"));
            assert_eq!(
                run(plus, "pencil", Bind::By(kind), &other, &bound),
                Err("channel"),
                "somebody stands between"
            );
            assert_eq!(
                run(plus, "pencil", Bind::By(kind), &bound, &open),
                Err("channel"),
                "we have no binding"
            );
        }
        assert_eq!(run(plus, "pencil", Bind::Cannot, &bound, &bound), Err("channel"));
    }
    for unbound in [ScramSha1, ScramSha256] {
        assert_eq!(run(unbound, "pencil", Bind::Cannot, &open, &open), Ok(()));
        assert_eq!(run(unbound, "pencil", Bind::Cannot, &bound, &bound), Ok(()));
        assert_eq!(run(unbound, "pencil", Bind::Unoffered, &open, &open), Ok(()));
        assert_eq!(
            run(unbound, "pencil", Bind::Unoffered, &bound, &bound),
            Err("downgrade"),
            "the offer of binding was hidden"
        );
        let by = Bind::By(Binding::Exporter);
        assert_eq!(run(unbound, "pencil", by, &bound, &bound), Err("channel"));
    }
    let mut tls_unique = start(ScramSha256Plus, &bound).response(b"p=tls-unique,,n=user,r=x");
    assert_eq!(
        fault(std::mem::replace(&mut tls_unique, Step::Refused(""))),
        Fault::Channel
    );
}

#[test]
fn what_the_client_may_not_change() {
    let salted = Salted {
        salt: vec![1; 16],
        iterations: 1,
        nonce: "xyz".to_owned(),
    };
    for (last, expected) in [
        ("c=biws,r=abcxyz", Fault::Malformed),
        ("c=biws,r=abcxyZ,p=AAAA", Fault::Nonce),
        ("c=biws,r=abc,p=AAAA", Fault::Nonce),
        ("c=eSws,r=abcxyz,p=AAAA", Fault::Channel),
        ("c=!,r=abcxyz,p=AAAA", Fault::Malformed),
        ("r=abcxyz,c=biws,p=AAAA", Fault::Malformed),
        ("c=biws,r=abcxyz,p=!", Fault::Malformed),
    ] {
        let exchange = start(Mechanism::ScramSha256, &Channel::default());
        let (exchange, _) = challenge(ask(exchange.response(b"n,,n=user,r=abc"), &salted));
        assert_eq!(fault(exchange.response(last.as_bytes())), expected, "{last}");
    }
    let exchange = start(Mechanism::ScramSha256, &Channel::default());
    let (exchange, _) = challenge(ask(exchange.response(b"n,,n=user,r=abc"), &salted));
    let step = ask(exchange.response(b"c=biws,r=abcxyz,p=AAAA"), &salted);
    assert!(
        matches!(step, Step::Refused("wrong")),
        "a proof that is too short"
    );
}

#[test]
fn lines() {
    let plain = || start(Mechanism::Plain, &Channel::default());
    assert_eq!(fault(plain().line(b"*")), Fault::Cancelled);
    assert_eq!(fault(plain().line(b"!")), Fault::NotBase64);
    assert_eq!(fault(plain().initial(b"=")), Fault::Malformed);
    assert_eq!(
        fault(plain().line(b"=")),
        Fault::NotBase64,
        "only for an initial response"
    );
    let step = plain().line(sasl::encode("\0user\0pencil").as_bytes());
    let Step::Ask(asking, Request::Password(credentials)) = step else {
        panic!("{step:?}");
    };
    assert_eq!(credentials.password.expose(), "pencil");
    assert!(matches!(
        asking.answer(Answer::Refused("no")),
        Step::Refused("no")
    ));
    let (login, prompt) = Login::start(Mechanism::Login, all(), &Channel::default());
    assert_eq!(prompt, b"Username:");
    let (login, prompt) = challenge(login.response(b"user"));
    assert_eq!(prompt, "Password:");
    assert!(matches!(login.response(b"x"), Step::Ask(_, Request::Password(_))));
}

#[test]
fn a_refused_token_is_explained_first() {
    let exchange = start(Mechanism::OAuthBearer, &Channel::default());
    let step = exchange.response(b"n,a=user,\x01auth=Bearer x\x01\x01");
    let Step::Ask(asking, Request::Token(bearer)) = step else {
        panic!("{step:?}");
    };
    assert!(!format!("{bearer:?}").contains('x'));
    let (exchange, told) = challenge(asking.answer(Answer::Refused("expired")));
    assert_eq!(told, r#"{"status":"invalid_token"}"#);
    assert!(matches!(exchange.line(b"AQ=="), Step::Refused("expired")));
}

#[test]
fn external() {
    let external = || start(Mechanism::External, &Channel::default());
    let user = |step| match step {
        Step::Ask(_, Request::Certificate { authorization }) => authorization,
        other => panic!("{other:?}"),
    };
    assert_eq!(user(external().initial(b"=")), None);
    assert_eq!(user(external().response(b"user")).as_deref(), Some("user"));
    assert_eq!(fault(external().response(b"a\0b")), Fault::Malformed);
}

proptest! {
    #[test]
    fn any_bytes(data in proptest::collection::vec(any::<u8>(), 0..400)) {
        sasl::fuzz::exchange(&data);
    }

    #[test]
    fn any_messages(mechanism in 0u8..9, channel in any::<u8>(), messages in proptest::collection::vec(
        "([npy]|p=tls-exporter),(a=[a-z]{0,3})?,n=[a-z=2C]{0,5},r=[!-~]{0,5}|c=(biws|eSws),r=[a-z]{0,8},p=[A-Za-z0-9+/]{0,30}|\\PC{0,20}", 0..4))
    {
        let mut data = vec![mechanism, channel];
        let lines: Vec<String> = messages.iter().map(sasl::encode).collect();
        data.extend_from_slice(lines.join("\n").as_bytes());
        sasl::fuzz::exchange(&data);
    }

    #[test]
    fn every_password_opens_and_no_other(password in "\\PC{1,20}", other in "\\PC{1,20}") {
        let keys = Keys::derive(Hash::Sha256, &Secret::new(&*password), b"salt", 2);
        let same = Keys::derive(Hash::Sha256, &Secret::new(&*other), b"salt", 2);
        if password.is_ascii() && other.is_ascii() {
            prop_assert_eq!(password == other, keys == same);
        }
    }
}
