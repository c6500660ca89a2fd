//! Drives a conversation with whatever a lying filter sends, and checks what must hold for all of it.
//!
//! Called by property tests and by the fuzz target. A broken promise is a panic.

use crate::{Asked, Client, Command, Family, Fault, Letter, Limits, Macros, Step, Verdict};
use mail::{EmailAddress, ReversePath};

const MESSAGE: &[u8] =
    b"From: a@b.c\r\nSubject: one\r\n two\r\nX-A: 1\r\nX-A: 2\r\n\r\nHello\r\n.\r\nbye\r\n";

fn limits() -> Limits {
    Limits {
        packet_octets_max: 4_096,
        changes_max: 40,
        change_octets_max: 10_000,
        body_octets_max: 8_192,
    }
}

/// The whole conversation about one message; the filter's side is `data`. The first two octets
/// choose how it is cut.
///
/// # Panics
/// When a promise is broken: another outcome for other cuts, more held than the limits allow, a
/// message that lost its form.
pub fn client(data: &[u8]) {
    let Some((choice, rest)) = data.split_first_chunk::<2>() else {
        return;
    };
    // Once as it is; once behind a negotiation that agrees to everything, so that it gets somewhere.
    let agreed = [agreement(), rest.to_vec()].concat();
    for input in [rest, &agreed] {
        let whole = converse(input, input.len().max(1));
        let cut = converse(input, usize::from(choice[0] % 11) + 1);
        assert_eq!(whole, cut, "another cut of the input gave another outcome");
        // All at once: a filter that does not wait to be asked.
        let _ = run(&mut std::iter::once(input.to_vec()));
    }
}

fn agreement() -> Vec<u8> {
    let mut packet = Vec::new();
    crate::Answer::Negotiate {
        version: 6,
        actions: crate::flags::actions::ALL,
        // Told of nothing but the body and the end of the message.
        steps: 0x76f,
        macros: Vec::new(),
    }
    .encode(&mut packet);
    packet
}

/// The verdicts and the letter that a conversation came to.
type Outcome = (Vec<Verdict>, Option<Fault>, Option<Letter>);

fn converse(data: &[u8], cut: usize) -> Outcome {
    // A filter speaks when it is spoken to: a packet that comes with the answer before it is a fault,
    // and whether it did depends on the cut. So each packet comes as pieces of its own.
    let mut pieces = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        let announced = rest
            .first_chunk::<4>()
            .map_or(usize::MAX, |n| u32::from_be_bytes(*n) as usize);
        let length = announced.saturating_add(4).min(rest.len());
        let (packet, behind) = rest.split_at(length);
        pieces.extend(packet.chunks(cut).map(<[u8]>::to_vec));
        rest = behind;
    }
    run(&mut pieces.into_iter())
}

fn run(input: &mut dyn Iterator<Item = Vec<u8>>) -> Outcome {
    let mut client = Client::new(limits());
    let mut verdicts = Vec::new();
    let fault = talk(&mut client, input, &mut verdicts).err().flatten();
    let letter = (fault.is_none() && !client.is_waiting()).then(|| {
        let changes = client.take_changes();
        let letter = Letter {
            message: MESSAGE.to_vec(),
            reverse_path: ReversePath::Null,
            recipients: EmailAddress::parse("a@b.c").into_iter().collect(),
        };
        let out = crate::apply(letter, &changes);
        check_form(&out, &changes);
        out
    });
    (verdicts, fault, letter)
}

/// `Err(None)`: the input ended.
fn talk(
    client: &mut Client,
    input: &mut dyn Iterator<Item = Vec<u8>>,
    verdicts: &mut Vec<Verdict>,
) -> Result<(), Option<Fault>> {
    let mut macros = Macros::default();
    macros.set("i", Some("Q1"));
    macros.set("j", Some("mail.example.com"));
    verdicts.push(wait(client, input)?);
    for command in script() {
        if client.ask(&command, &macros).map_err(Some)? == Asked::Answer {
            let verdict = wait(client, input)?;
            let goes_on = verdict == Verdict::Continue;
            verdicts.push(verdict);
            if !goes_on {
                break;
            }
        }
    }
    Ok(())
}

fn script() -> Vec<Command> {
    let mut script = vec![
        Command::Connect {
            host: "client.example.net".into(),
            from: Family::Inet([192, 0, 2, 1].into(), 25),
        },
        Command::Helo("client.example.net".into()),
        Command::Mail("<a@b.c>".into(), vec!["SIZE=10".into()]),
        Command::Rcpt("<d@e.f>".into(), Vec::new()),
        Command::Data,
    ];
    for field in mail::header::fields(MESSAGE) {
        script.extend(crate::client::shown_field(field.name, field.raw_value, false));
    }
    script.push(Command::EndOfHeader);
    script.push(Command::Body(MESSAGE[crate::parts(MESSAGE).1..].to_vec()));
    script.push(Command::Body(b"more\r\n".to_vec()));
    script.push(Command::EndOfMessage);
    script
}

fn wait(client: &mut Client, input: &mut dyn Iterator<Item = Vec<u8>>) -> Result<Verdict, Option<Fault>> {
    let _ = client.take_output();
    loop {
        match client.step().map_err(Some)? {
            Step::Verdict(verdict) => return Ok(verdict),
            Step::Progress => {}
            Step::Read => {
                let piece = input.next().ok_or(None)?;
                client.feed(&piece);
                let most = limits().packet_octets_max
                    + limits().change_octets_max
                    + limits().body_octets_max
                    + piece.len()
                    + 4;
                assert!(client.held_octets() <= most, "more is held than the limits allow");
            }
        }
    }
}

/// Each new field is one field, the rest is as it was.
fn check_form(letter: &Letter, changes: &[crate::Change]) {
    use crate::Change;
    let message = &letter.message;
    let mut fields = mail::header::fields(message);
    let mut end = 0;
    for field in fields.by_ref() {
        end = field.span().end;
        assert!(field.raw.ends_with(b"\r\n"));
        let known = [&b"From"[..], b"Subject", b"X-A"]
            .iter()
            .any(|name| field.name.eq_ignore_ascii_case(name));
        let named = changes.iter().any(|c| match c {
            Change::AddHeader { name, .. }
            | Change::InsertHeader { name, .. }
            | Change::ChangeHeader { name, .. } => name.as_bytes() == field.name,
            _ => false,
        });
        assert!(known || named, "a field came from nowhere");
    }
    assert!(
        message[end..].starts_with(b"\r\n"),
        "the header section does not end"
    );
    let body = &message[end + 2..];
    let without = body.split(|b| *b == b'\n').all(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        !line.contains(&b'\r') && !line.contains(&0)
    });
    assert!(without, "the body lost its lines");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_filter(data in prop::collection::vec(any::<u8>(), 0..600)) {
            super::client(&data);
        }

        #[test]
        fn packets_of_known_kinds(packets in prop::collection::vec(
            (prop::sample::select(b"carstdyhimb+-2eqpOf4".to_vec()), prop::collection::vec(any::<u8>(), 0..40)), 0..12,
        )) {
            let mut data = vec![3, 0];
            for (kind, inside) in packets {
                crate::packet::write(&mut data, kind, &inside);
            }
            super::client(&data);
        }
    }
}
