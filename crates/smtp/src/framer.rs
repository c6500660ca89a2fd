//! Finds the borders in what a client sends: command lines, and mail data up to its end mark.
//!
//! Promises: strict line endings (RFC 5321 §2.3.8); mail data ends at CRLF.CRLF and at nothing
//! else; a held-back piece is never longer than the limit. Never: the meaning of a line.

/// Why a command line cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LineFault {
    /// Longer than the limit; it was thrown away up to its end.
    TooLong,
    /// Ended by LF without CR.
    BareLf,
    /// A CR that no LF follows.
    BareCr,
    /// An octet of value zero.
    Nul,
    /// One of these in a line that begins with BDAT: where the next command begins is unknown.
    OfChunk,
}

/// Cuts command lines.
#[derive(Debug, Default)]
pub struct Lines {
    held: Vec<u8>,
    overlong: bool,
}

impl Lines {
    /// Takes the next whole line off `input`, without its CRLF, and hands it to `use_line`.
    /// `None`: no whole line yet; all input was taken. `octets_max` counts the CRLF.
    pub fn next<T>(
        &mut self,
        input: &mut &[u8],
        octets_max: usize,
        use_line: impl FnOnce(Result<&[u8], LineFault>) -> T,
    ) -> Option<T> {
        let Some(end) = memchr::memchr(b'\n', input) else {
            self.hold(input, octets_max);
            *input = &[];
            return None;
        };
        let (piece, rest) = input.split_at(end + 1);
        *input = rest;
        if self.overlong || self.held.len() + piece.len() > octets_max {
            *self = Self::default();
            return Some(use_line(Err(LineFault::TooLong)));
        }
        if self.held.is_empty() {
            return Some(use_line(checked(piece)));
        }
        let mut line = std::mem::take(&mut self.held);
        line.extend_from_slice(piece);
        Some(use_line(checked(&line)))
    }

    fn hold(&mut self, piece: &[u8], octets_max: usize) {
        if self.overlong || self.held.len() + piece.len() > octets_max {
            self.overlong = true;
            self.held = Vec::new();
        } else {
            self.held.extend_from_slice(piece);
        }
    }

    /// Whether the line that is under way is longer than the limit already. Its end may never come.
    #[must_use]
    pub fn is_overlong(&self) -> bool {
        self.overlong
    }

    /// Octets that wait for the rest of their line.
    #[must_use]
    pub fn held_octets(&self) -> usize {
        self.held.len()
    }
}

/// The line without its ending, if it is clean. `line` ends with LF.
fn checked(line: &[u8]) -> Result<&[u8], LineFault> {
    clean(line).map_err(|fault| {
        if crate::command::is_bdat(line) {
            LineFault::OfChunk
        } else {
            fault
        }
    })
}

fn clean(line: &[u8]) -> Result<&[u8], LineFault> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").ok_or(LineFault::BareLf)?;
    match memchr::memchr2(b'\r', 0, line) {
        None => Ok(line),
        Some(i) if line[i] == 0 => Err(LineFault::Nul),
        Some(_) => Err(LineFault::BareCr),
    }
}

/// What makes mail data unacceptable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataFault {
    /// An LF without CR before it.
    BareLf,
    /// A CR without LF behind it.
    BareCr,
    /// An octet of value zero (RFC 5321 §2.3.1 asks for text).
    Nul,
    /// A line longer than the limit.
    LineTooLong,
}

/// What the data framer found next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataPiece<'a> {
    /// Octets of the message, dots unstuffed.
    Octets(&'a [u8]),
    /// All input was taken; more is needed.
    More,
    /// CRLF.CRLF: the message is whole.
    End,
    /// After a line-ending fault, something that looks like an end mark to sloppy software. The
    /// message is refused and the connection must close: the two sides no longer agree about where
    /// commands begin.
    LooseEnd,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// Behind CRLF, or at the very beginning.
    LineStart,
    /// Within a line.
    Line,
    /// Behind a CR that was passed on already.
    Cr,
    /// Behind the dot that begins a line; the dot was dropped.
    Dot,
    /// Behind such a dot and a CR; the CR is held back.
    DotCr,
}

/// How far an end mark with wrong line endings has been seen. Only followed after a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Loose {
    No,
    Newline,
    Dot,
    DotCr,
}

/// Cuts mail data (RFC 5321 §4.5.2) and removes the stuffed dots, without copying.
#[derive(Debug)]
pub struct Data {
    at: At,
    loose: Loose,
    fault: Option<DataFault>,
    line_octets: usize,
    line_octets_max: usize,
}

impl Data {
    /// A framer for one message. `line_octets_max` is the longest line, CRLF included.
    #[must_use]
    pub fn new(line_octets_max: usize) -> Self {
        Self {
            at: At::LineStart,
            loose: Loose::No,
            fault: None,
            line_octets: 0,
            line_octets_max,
        }
    }

    /// The first fault found so far. Once there is one, no more octets are given out.
    #[must_use]
    pub fn fault(&self) -> Option<DataFault> {
        self.fault
    }

    /// Takes the next piece off `input`.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> DataPiece<'a> {
        while !input.is_empty() {
            let found = if self.fault.is_some() {
                self.scan_for_end(input)
            } else {
                self.piece(input)
            };
            if let Some(found) = found {
                return found;
            }
        }
        DataPiece::More
    }

    /// One piece of clean data. `None` when a dot, a held CR or a fault was all there was.
    fn piece<'a>(&mut self, input: &mut &'a [u8]) -> Option<DataPiece<'a>> {
        match (self.at, input[0]) {
            (At::LineStart, b'.') => {
                *input = &input[1..];
                self.at = At::Dot;
                None
            }
            (At::Dot, b'\r') => {
                *input = &input[1..];
                self.at = At::DotCr;
                None
            }
            (At::DotCr, b'\n') => {
                *input = &input[1..];
                Some(DataPiece::End)
            }
            (At::DotCr, _) => {
                self.fail(DataFault::BareCr);
                None
            }
            (At::Dot, b'\n') => {
                self.fail(DataFault::BareLf);
                None
            }
            _ => self.run(input),
        }
    }

    /// The longest run of octets that goes out as it came: up to a stuffed dot or a fault.
    fn run<'a>(&mut self, input: &mut &'a [u8]) -> Option<DataPiece<'a>> {
        let all = *input;
        let mut i = 0;
        if self.at == At::Dot {
            self.at = At::Line;
        }
        while i < all.len() && self.fault.is_none() {
            match self.at {
                At::LineStart if all[i] == b'.' => break,
                At::Cr if all[i] == b'\n' => {
                    self.at = At::LineStart;
                    self.line_octets = 0;
                    i += 1;
                }
                At::Cr => self.fail(DataFault::BareCr),
                _ => i += self.within_line(&all[i..]),
            }
        }
        *input = &all[i..];
        (i > 0).then_some(DataPiece::Octets(&all[..i]))
    }

    /// Goes to the next CR, LF or NUL, or to the end. Gives how many octets are good.
    fn within_line(&mut self, rest: &[u8]) -> usize {
        let next = memchr::memchr3(b'\r', b'\n', 0, rest);
        let plain = next.unwrap_or(rest.len());
        self.at = At::Line;
        self.line_octets = self.line_octets.saturating_add(plain);
        let over = self
            .line_octets
            .saturating_add(2)
            .saturating_sub(self.line_octets_max);
        if over > 0 {
            self.fail(DataFault::LineTooLong);
            return plain.saturating_sub(over);
        }
        match next.map(|i| rest[i]) {
            None => plain,
            Some(b'\r') => {
                self.at = At::Cr;
                plain + 1
            }
            Some(b'\n') => {
                self.fail(DataFault::BareLf);
                plain
            }
            Some(_) => {
                self.fail(DataFault::Nul);
                plain
            }
        }
    }

    fn fail(&mut self, fault: DataFault) {
        self.fault = Some(fault);
        self.loose = match self.at {
            At::LineStart | At::Cr => Loose::Newline,
            At::Line => Loose::No,
            At::Dot => Loose::Dot,
            At::DotCr => Loose::DotCr,
        };
    }

    /// After a fault: looks only for the end, octet by octet.
    fn scan_for_end<'a>(&mut self, input: &mut &'a [u8]) -> Option<DataPiece<'a>> {
        for (i, b) in input.iter().enumerate() {
            let strict_end = self.at == At::DotCr && *b == b'\n';
            let loose_end = *b == b'\n' && matches!(self.loose, Loose::Dot | Loose::DotCr);
            self.at = match (self.at, b) {
                (At::Cr | At::DotCr, b'\n') => At::LineStart,
                (At::LineStart, b'.') => At::Dot,
                (At::Dot, b'\r') => At::DotCr,
                (_, b'\r') => At::Cr,
                _ => At::Line,
            };
            self.loose = match (self.loose, b) {
                (Loose::Newline, b'.') => Loose::Dot,
                (Loose::Dot, b'\r') => Loose::DotCr,
                (_, b'\r' | b'\n') => Loose::Newline,
                _ => Loose::No,
            };
            if strict_end || loose_end {
                *input = &input[i + 1..];
                return Some(if strict_end {
                    DataPiece::End
                } else {
                    DataPiece::LooseEnd
                });
            }
        }
        *input = &[];
        None
    }
}

/// Watches a message that comes in chunks (RFC 3030 §2): nothing is stuffed in it and nothing ends it,
/// but text must be text, and the header section of a binary message too.
#[derive(Debug)]
pub struct Chunked {
    at: At,
    /// BODY=BINARYMIME.
    binary: bool,
    /// Whether any octet may come now: in the body of a binary message.
    free: bool,
    line_octets: usize,
    line_octets_max: usize,
}

impl Chunked {
    /// A watcher for one message. `line_octets_max` is the longest line of text, CRLF included.
    #[must_use]
    pub fn new(binary: bool, line_octets_max: usize) -> Self {
        Self {
            at: At::LineStart,
            binary,
            free: false,
            line_octets: 0,
            line_octets_max,
        }
    }

    /// Looks at the next octets.
    ///
    /// # Errors
    /// What is wrong with them. The message is of no use then.
    pub fn watch(&mut self, octets: &[u8]) -> Result<(), DataFault> {
        let mut rest = octets;
        while let Some(&first) = rest.first() {
            if self.free {
                return Ok(());
            }
            if self.at == At::Cr {
                if first != b'\n' {
                    return Err(DataFault::BareCr);
                }
                // An empty line ends the header section.
                self.free = self.binary && self.line_octets == 0;
                self.at = At::LineStart;
                self.line_octets = 0;
                rest = &rest[1..];
                continue;
            }
            rest = self.within_line(rest)?;
        }
        Ok(())
    }

    fn within_line<'a>(&mut self, rest: &'a [u8]) -> Result<&'a [u8], DataFault> {
        let next = memchr::memchr3(b'\r', b'\n', 0, rest);
        let plain = next.unwrap_or(rest.len());
        self.at = At::Line;
        self.line_octets = self.line_octets.saturating_add(plain);
        if self.line_octets.saturating_add(2) > self.line_octets_max {
            return Err(DataFault::LineTooLong);
        }
        match next.map(|i| rest[i]) {
            None => Ok(&[]),
            Some(b'\r') => {
                self.at = At::Cr;
                Ok(&rest[plain + 1..])
            }
            Some(b'\n') => Err(DataFault::BareLf),
            Some(_) => Err(DataFault::Nul),
        }
    }

    /// The missing CRLF of the last line was added.
    pub fn end_line(&mut self) {
        self.at = At::LineStart;
    }

    /// The message is over. Answers whether its last line lacks the CRLF, which text must have.
    ///
    /// # Errors
    /// [`DataFault::BareCr`].
    pub fn finish(&self) -> Result<bool, DataFault> {
        match self.at {
            At::Cr => Err(DataFault::BareCr),
            At::Line => Ok(!self.free),
            _ => Ok(false),
        }
    }
}

/// Makes a message fit to be sent: stuffs dots (RFC 5321 §4.5.2) and turns every line ending into
/// CRLF, so that no piece of a message can ever look like the end of it.
#[derive(Debug)]
pub struct Stuffer {
    line_start: bool,
    after_cr: bool,
    stuffs: bool,
}

impl Default for Stuffer {
    fn default() -> Self {
        Self {
            line_start: true,
            after_cr: false,
            stuffs: true,
        }
    }
}

impl Stuffer {
    /// For BDAT (RFC 3030 §2): the line endings become CRLF, the dots stay as they are.
    #[must_use]
    pub fn without_dots() -> Self {
        Self {
            stuffs: false,
            ..Self::default()
        }
    }

    /// Appends the next octets of the message to `out`.
    pub fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        let mut rest = octets;
        while let Some(&first) = rest.first() {
            if self.after_cr {
                // The CR's line ending went out as CRLF; its own LF is part of that.
                self.after_cr = false;
                if first == b'\n' {
                    rest = &rest[1..];
                    continue;
                }
            }
            if self.stuffs && self.line_start && first == b'.' {
                out.push(b'.');
            }
            let end = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
            out.extend_from_slice(&rest[..end]);
            self.line_start = end == 0 && self.line_start;
            if let Some(ending) = rest.get(end) {
                out.extend_from_slice(b"\r\n");
                self.line_start = true;
                self.after_cr = *ending == b'\r';
                rest = &rest[end + 1..];
            } else {
                rest = &[];
            }
        }
    }

    /// Appends the end mark, completing the last line first if need be.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.finish_line(out);
        out.extend_from_slice(b".\r\n");
    }

    /// Completes the last line if need be. The next octets begin another message.
    pub fn finish_line(&mut self, out: &mut Vec<u8>) {
        if !self.line_start {
            out.extend_from_slice(b"\r\n");
        }
        self.line_start = true;
        self.after_cr = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds the input cut at `cuts`, gives the message and how it ended.
    fn unstuffed(input: &[u8], piece: usize) -> (Vec<u8>, String, usize) {
        let mut framer = Data::new(usize::MAX);
        let mut out = Vec::new();
        let mut taken = 0;
        for chunk in input.chunks(piece.max(1)) {
            let mut rest = chunk;
            loop {
                let found = framer.next(&mut rest);
                match found {
                    DataPiece::Octets(o) => out.extend_from_slice(o),
                    DataPiece::More => break,
                    end => {
                        taken += chunk.len() - rest.len();
                        return (out, format!("{end:?} {:?}", framer.fault()), taken);
                    }
                }
            }
            taken += chunk.len();
        }
        (out, format!("more {:?}", framer.fault()), taken)
    }

    #[test]
    fn ends_only_where_it_must() {
        for (input, message, end) in [
            (&b"a\r\n.\r\nQUIT"[..], &b"a\r\n"[..], "End None"),
            (b".\r\n", b"", "End None"),
            (b"..a\r\n.\r\n", b".a\r\n", "End None"),
            (b".a\r\n..\r\n.\r\n", b"a\r\n.\r\n", "End None"),
            (b"a\n.\nb\r\n.\r\n", b"a", "LooseEnd Some(BareLf)"),
            (b"a\n.\r\nMAIL", b"a", "LooseEnd Some(BareLf)"),
            (b"a\r\n.\nMAIL", b"a\r\n", "LooseEnd Some(BareLf)"),
            (b"a\nb\r\n.\r\n", b"a", "End Some(BareLf)"),
            (b"a\rb\r\n.\r\n", b"a\r", "End Some(BareCr)"),
            (b"a\r\n.\rb\r\n.\r\n", b"a\r\n", "End Some(BareCr)"),
            (b"a\r.\r", b"a\r", "more Some(BareCr)"),
            (b"a\0b\r\n.\r\n", b"a", "End Some(Nul)"),
            (b"a\r\r\n.\r\n", b"a\r", "End Some(BareCr)"),
        ] {
            for piece in [1, 2, 3, 100] {
                let (m, e, _) = unstuffed(input, piece);
                assert_eq!((&m[..], &e[..]), (message, end), "{}", input.escape_ascii());
            }
        }
    }

    /// Watches chunks cut at `piece` and gives what was found at the end.
    fn watched(input: &[u8], binary: bool, piece: usize) -> Result<bool, DataFault> {
        let mut framer = Chunked::new(binary, 12);
        for piece in input.chunks(piece.max(1)) {
            framer.watch(piece)?;
        }
        framer.finish()
    }

    #[test]
    fn chunks_of_text_are_lines() {
        for (input, binary, expected) in [
            (&b"a: b\r\n\r\nhi\r\n"[..], false, Ok(false)),
            (b"a: b\r\n\r\nhi", false, Ok(true)),
            (b"", false, Ok(false)),
            (b"a\nb", false, Err(DataFault::BareLf)),
            (b"a\rb", false, Err(DataFault::BareCr)),
            (b"a\r", false, Err(DataFault::BareCr)),
            (b"a\0", false, Err(DataFault::Nul)),
            (b"a\r\n.\r\nb\r\n", false, Ok(false)),
            (b"01234567890\r\n", false, Err(DataFault::LineTooLong)),
            (b"0123456789\r\n", false, Ok(false)),
            (b"a: b\r\n\r\na\nb\0c\r", true, Ok(false)),
            (b"\r\n\n\n012345678901234567890", true, Ok(false)),
            (b"a: b\nc", true, Err(DataFault::BareLf)),
            (b"a: b", true, Ok(true)),
        ] {
            for piece in [1, 2, 3, 100] {
                assert_eq!(
                    watched(input, binary, piece),
                    expected,
                    "{}",
                    input.escape_ascii()
                );
            }
        }
    }

    #[test]
    fn long_lines() {
        let mut framer = Data::new(10);
        let mut input = &b"12345678\r\n123456789\r\n.\r\n"[..];
        assert_eq!(
            framer.next(&mut input),
            DataPiece::Octets(b"12345678\r\n12345678")
        );
        assert_eq!(framer.next(&mut input), DataPiece::End);
        assert_eq!(framer.fault(), Some(DataFault::LineTooLong));
    }

    #[test]
    fn lines() {
        let mut lines = Lines::default();
        let mut input = &b"one\r\ntwo\nth\rree\r\nfo\0ur\r\nfiiiiiiiiive\r\nsix\r\nse"[..];
        let mut seen = Vec::new();
        while let Some(line) = lines.next(&mut input, 10, |l| l.map(<[u8]>::to_vec)) {
            seen.push(line);
        }
        assert_eq!(
            seen,
            [
                Ok(b"one".to_vec()),
                Err(LineFault::BareLf),
                Err(LineFault::BareCr),
                Err(LineFault::Nul),
                Err(LineFault::TooLong),
                Ok(b"six".to_vec()),
            ]
        );
        assert_eq!(lines.held_octets(), 2);
    }

    proptest! {
        #[test]
        fn what_is_stuffed_comes_back(lines in proptest::collection::vec("[.a\u{e9} ]{0,5}", 0..8), a in 1usize..9, b in 1usize..9) {
            let message = lines.iter().map(|l| format!("{l}\r\n")).collect::<String>().into_bytes();
            let mut wire = Vec::new();
            let mut stuffer = Stuffer::default();
            for piece in message.chunks(a) {
                stuffer.push(piece, &mut wire);
            }
            stuffer.finish(&mut wire);
            let (back, end, taken) = unstuffed(&wire, b);
            prop_assert_eq!(back, message);
            prop_assert_eq!(end, "End None");
            prop_assert_eq!(taken, wire.len());
        }

        #[test]
        fn stuffed_bytes_hold_one_end(message in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a')], 0..40), a in 1usize..9) {
            let mut wire = Vec::new();
            let mut stuffer = Stuffer::default();
            for piece in message.chunks(a) {
                stuffer.push(piece, &mut wire);
            }
            stuffer.finish(&mut wire);
            let (_, end, taken) = unstuffed(&wire, 7);
            prop_assert_eq!(end, "End None");
            prop_assert_eq!(taken, wire.len());
        }

        #[test]
        fn without_dots_lines_are_clean_and_octets_stay(message in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a')], 0..40), a in 1usize..9) {
            let wired = |piece: usize| {
                let (mut wire, mut lines) = (Vec::new(), Stuffer::without_dots());
                message.chunks(piece).for_each(|piece| lines.push(piece, &mut wire));
                lines.finish_line(&mut wire);
                wire
            };
            let wire = wired(a);
            prop_assert_eq!(&wire, &wired(100));
            prop_assert_eq!(watched(&wire, false, 7), if wire.is_empty() { Ok(false) } else { watched(&wire, false, 100) });
            let plain = |octets: &[u8]| octets.iter().copied().filter(|b| !b"\r\n".contains(b)).collect::<Vec<u8>>();
            prop_assert_eq!(plain(&wire), plain(&message));
            prop_assert!(wire.is_empty() || wire.ends_with(b"\r\n"));
        }

        #[test]
        fn any_split_gives_the_same(input in proptest::collection::vec(prop_oneof![4 => Just(b'\r'), 4 => Just(b'\n'), 4 => Just(b'.'), 2 => Just(b'a'), 1 => Just(0)], 0..40), piece in 1usize..9) {
            prop_assert_eq!(unstuffed(&input, piece), unstuffed(&input, 1_000));
        }
    }
}
