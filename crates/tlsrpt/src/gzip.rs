//! gzip (RFC 1952) over DEFLATE (RFC 1951), as far as reports need it.
//!
//! Reading takes whatever a stranger packed, block types and all, and stops at a limit of octets that
//! the caller names, so that a small bomb stays small. Writing uses the fixed code and one probe for
//! earlier text: reports are short and repeat themselves, so that suffices.
//!
//! Pure and total: any octets give octets or a [`GzipError`]; time is linear in what is read and written.

/// Why octets could not be unpacked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GzipError {
    /// The header is not one of gzip.
    #[error("it is not gzip")]
    NotGzip,
    /// More octets should follow.
    #[error("the gzip data is cut off")]
    CutOff,
    /// A code, a distance, a length or a checksum is wrong.
    #[error("the gzip data is damaged")]
    Damaged,
    /// It has more blocks than any program makes of so much text.
    #[error("it has more than {0} blocks")]
    TooManyBlocks(usize),
    /// It unpacks to more than the caller takes.
    #[error("it unpacks to more than {0} octets")]
    TooLarge(usize),
}

/// The first symbol that stands for a length is 257: base and extra bits of each (RFC 1951 §3.2.5).
const LENGTHS: [(u16, u8); 29] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
];
/// Base and extra bits of each distance.
const DISTANCES: [(u16, u8); 30] = [
    (1, 0),
    (2, 0),
    (3, 0),
    (4, 0),
    (5, 1),
    (7, 1),
    (9, 2),
    (13, 2),
    (17, 3),
    (25, 3),
    (33, 4),
    (49, 4),
    (65, 5),
    (97, 5),
    (129, 6),
    (193, 6),
    (257, 7),
    (385, 7),
    (513, 8),
    (769, 8),
    (1025, 9),
    (1537, 9),
    (2049, 10),
    (3073, 10),
    (4097, 11),
    (6145, 11),
    (8193, 12),
    (12289, 12),
    (16385, 13),
    (24577, 13),
];
/// In which order the lengths of the code of lengths stand (RFC 1951 §3.2.7).
const LENGTHS_ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
/// Bits of a code at most.
const CODE_BITS_MAX: usize = 15;
const END_OF_BLOCK: u16 = 256;
/// Blocks at most. A block of ten bits holds nothing and still needs its codes built, so that millions
/// of them would keep a processor busy for nothing.
const BLOCKS_MAX: usize = 50_000;
/// How far back earlier text is found.
const WINDOW: usize = 32 * 1024;
const MATCH_MIN: usize = 3;
const MATCH_MAX: usize = 258;
/// Places in which the writer remembers where three octets stood last.
const HASH_BITS: u32 = 14;

/// The octets that gzip holds, `octets_max` of them at most. What stands behind the first member is
/// passed over.
///
/// # Errors
/// [`GzipError`].
pub fn unpack(packed: &[u8], octets_max: usize) -> Result<Vec<u8>, GzipError> {
    let mut bits = Bits {
        octets: behind_header(packed)?,
        at: 0,
        held: 0,
        count: 0,
    };
    let mut out = Out {
        octets: Vec::new(),
        octets_max,
    };
    inflate(&mut bits, &mut out)?;
    bits.align();
    let checksum = bits.word()?;
    let length = bits.word()?;
    // The length is kept modulo 2^32; nothing here is ever so long.
    if checksum != crc32(&out.octets) || u32::try_from(out.octets.len()) != Ok(length) {
        return Err(GzipError::Damaged);
    }
    Ok(out.octets)
}

/// What stands behind the header of the first member.
fn behind_header(packed: &[u8]) -> Result<&[u8], GzipError> {
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    const HEADER_CHECKSUM: u8 = 2;
    let [0x1f, 0x8b, 8, flags, rest @ ..] = packed else {
        return Err(GzipError::NotGzip);
    };
    if flags & 0xe0 != 0 {
        return Err(GzipError::NotGzip);
    }
    // Time of change, extra flags, operating system.
    let mut rest = rest.get(6..).ok_or(GzipError::CutOff)?;
    if flags & EXTRA != 0 {
        let (length, behind) = rest.split_first_chunk::<2>().ok_or(GzipError::CutOff)?;
        let length = usize::from(u16::from_le_bytes(*length));
        rest = behind.get(length..).ok_or(GzipError::CutOff)?;
    }
    for flag in [NAME, COMMENT] {
        if flags & flag != 0 {
            let end = rest.iter().position(|b| *b == 0).ok_or(GzipError::CutOff)?;
            rest = &rest[end + 1..];
        }
    }
    if flags & HEADER_CHECKSUM != 0 {
        rest = rest.get(2..).ok_or(GzipError::CutOff)?;
    }
    Ok(rest)
}

/// Reads bits, the lowest of each octet first.
struct Bits<'a> {
    octets: &'a [u8],
    at: usize,
    held: u32,
    count: u32,
}

impl Bits<'_> {
    /// The next bits, 16 at most, as a number.
    fn take(&mut self, n: u32) -> Result<u32, GzipError> {
        while self.count < n {
            let octet = *self.octets.get(self.at).ok_or(GzipError::CutOff)?;
            self.at += 1;
            self.held |= u32::from(octet) << self.count;
            self.count += 8;
        }
        let value = self.held & ((1 << n) - 1);
        self.held >>= n;
        self.count -= n;
        Ok(value)
    }

    /// Drops the rest of the octet that was begun.
    fn align(&mut self) {
        self.held = 0;
        self.count = 0;
    }

    fn slice(&mut self, len: usize) -> Result<&[u8], GzipError> {
        let end = self.at.saturating_add(len);
        let slice = self.octets.get(self.at..end).ok_or(GzipError::CutOff)?;
        self.at = end;
        Ok(slice)
    }

    fn word(&mut self) -> Result<u32, GzipError> {
        let four = self.slice(4)?.first_chunk::<4>().ok_or(GzipError::CutOff)?;
        Ok(u32::from_le_bytes(*four))
    }
}

/// What was unpacked so far.
struct Out {
    octets: Vec<u8>,
    octets_max: usize,
}

impl Out {
    fn room_for(&self, more: usize) -> Result<(), GzipError> {
        if self.octets_max - self.octets.len() < more {
            return Err(GzipError::TooLarge(self.octets_max));
        }
        Ok(())
    }

    fn copy(&mut self, distance: usize, length: usize) -> Result<(), GzipError> {
        self.room_for(length)?;
        let from = self
            .octets
            .len()
            .checked_sub(distance)
            .ok_or(GzipError::Damaged)?;
        // It may overlap what it writes, so octet by octet.
        for i in from..from + length {
            let octet = self.octets[i];
            self.octets.push(octet);
        }
        Ok(())
    }
}

/// A canonical Huffman code: how many codes there are of each length, and their symbols in order.
struct Code {
    counts: [u16; CODE_BITS_MAX + 1],
    symbols: Vec<u16>,
}

impl Code {
    fn new(lengths: &[u8]) -> Result<Self, GzipError> {
        let mut counts = [0u16; CODE_BITS_MAX + 1];
        for length in lengths {
            counts[usize::from(*length)] += 1;
        }
        counts[0] = 0;
        let mut left: i32 = 1;
        for count in &counts[1..] {
            left = left * 2 - i32::from(*count);
            if left < 0 {
                return Err(GzipError::Damaged);
            }
        }
        // Where the symbols of each length begin.
        let mut places = [0usize; CODE_BITS_MAX + 2];
        for length in 1..=CODE_BITS_MAX {
            places[length + 1] = places[length] + usize::from(counts[length]);
        }
        let mut symbols = vec![0u16; places[CODE_BITS_MAX + 1]];
        for (symbol, length) in lengths.iter().enumerate().filter(|(_, length)| **length != 0) {
            let place = &mut places[usize::from(*length)];
            symbols[*place] = symbol as u16;
            *place += 1;
        }
        Ok(Self { counts, symbols })
    }

    fn next(&self, bits: &mut Bits<'_>) -> Result<u16, GzipError> {
        let (mut code, mut first, mut index) = (0u32, 0u32, 0u32);
        for count in &self.counts[1..] {
            let count = u32::from(*count);
            code |= bits.take(1)?;
            if code < first + count {
                let place = (index + code - first) as usize;
                return self.symbols.get(place).copied().ok_or(GzipError::Damaged);
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        Err(GzipError::Damaged)
    }
}

fn inflate(bits: &mut Bits<'_>, out: &mut Out) -> Result<(), GzipError> {
    for _ in 0..BLOCKS_MAX {
        let is_last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => stored(bits, out)?,
            1 => {
                let mut lengths = [8u8; 288];
                lengths[144..256].fill(9);
                lengths[256..280].fill(7);
                block(bits, out, &Code::new(&lengths)?, &Code::new(&[5; 30])?)?;
            }
            2 => {
                let (literals, distances) = codes(bits)?;
                block(bits, out, &literals, &distances)?;
            }
            _ => return Err(GzipError::Damaged),
        }
        if is_last {
            return Ok(());
        }
    }
    Err(GzipError::TooManyBlocks(BLOCKS_MAX))
}

fn stored(bits: &mut Bits<'_>, out: &mut Out) -> Result<(), GzipError> {
    bits.align();
    let both = bits.word()?;
    let (length, complement) = (both & 0xffff, both >> 16);
    if length ^ complement != 0xffff {
        return Err(GzipError::Damaged);
    }
    out.room_for(length as usize)?;
    out.octets.extend_from_slice(bits.slice(length as usize)?);
    Ok(())
}

/// The codes of a block that brings its own (RFC 1951 §3.2.7).
fn codes(bits: &mut Bits<'_>) -> Result<(Code, Code), GzipError> {
    let literals = bits.take(5)? as usize + 257;
    let distances = bits.take(5)? as usize + 1;
    let given = bits.take(4)? as usize + 4;
    if literals > 286 || distances > 30 {
        return Err(GzipError::Damaged);
    }
    let mut lengths = [0u8; 19];
    for place in &LENGTHS_ORDER[..given] {
        lengths[*place] = bits.take(3)? as u8;
    }
    let code = Code::new(&lengths)?;
    let mut lengths: Vec<u8> = Vec::with_capacity(literals + distances);
    while lengths.len() < literals + distances {
        let (length, times) = match code.next(bits)? {
            symbol @ 0..=15 => (symbol as u8, 1),
            16 => {
                let last = *lengths.last().ok_or(GzipError::Damaged)?;
                (last, bits.take(2)? + 3)
            }
            17 => (0, bits.take(3)? + 3),
            _ => (0, bits.take(7)? + 11),
        };
        lengths.extend(std::iter::repeat_n(length, times as usize));
    }
    if lengths.len() != literals + distances || lengths[usize::from(END_OF_BLOCK)] == 0 {
        return Err(GzipError::Damaged);
    }
    let (literals, distances) = lengths.split_at(literals);
    Ok((Code::new(literals)?, Code::new(distances)?))
}

fn block(bits: &mut Bits<'_>, out: &mut Out, literals: &Code, distances: &Code) -> Result<(), GzipError> {
    loop {
        let symbol = literals.next(bits)?;
        if symbol < END_OF_BLOCK {
            out.room_for(1)?;
            out.octets.push(symbol as u8);
            continue;
        }
        if symbol == END_OF_BLOCK {
            return Ok(());
        }
        let length = with_extra(bits, &LENGTHS, usize::from(symbol - END_OF_BLOCK - 1))?;
        let symbol = distances.next(bits)?;
        let distance = with_extra(bits, &DISTANCES, usize::from(symbol))?;
        out.copy(distance, length)?;
    }
}

fn with_extra(bits: &mut Bits<'_>, table: &[(u16, u8)], place: usize) -> Result<usize, GzipError> {
    let (base, extra) = table.get(place).ok_or(GzipError::Damaged)?;
    Ok(usize::from(*base) + bits.take(u32::from(*extra))? as usize)
}

/// Packs octets into one member. The same octets give the same result.
#[must_use]
pub fn pack(octets: &[u8]) -> Vec<u8> {
    // Deflate, no flags, no time, no hint, operating system unknown.
    let mut writer = Writer {
        out: vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255],
        held: 0,
        count: 0,
    };
    // The only and last block, with the fixed code.
    writer.put(1, 1);
    writer.put(1, 2);
    let mut last_at = vec![0usize; 1 << HASH_BITS];
    let mut at = 0;
    while at < octets.len() {
        let found = earlier(octets, at, &last_at);
        let step = match found {
            Some((distance, length)) => {
                writer.back(distance, length);
                length
            }
            None => {
                writer.symbol(u16::from(octets[at]));
                1
            }
        };
        for place in at..at + step {
            if let Some(hash) = hash_at(octets, place) {
                last_at[hash] = place + 1;
            }
        }
        at += step;
    }
    writer.symbol(END_OF_BLOCK);
    let mut out = writer.finish();
    out.extend_from_slice(&crc32(octets).to_le_bytes());
    out.extend_from_slice(&(octets.len() as u32).to_le_bytes());
    out
}

fn hash_at(octets: &[u8], at: usize) -> Option<usize> {
    let three = octets.get(at..at + MATCH_MIN)?;
    let number = three.iter().fold(0u32, |n, octet| (n << 8) | u32::from(*octet));
    Some((number.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize)
}

/// Distance and length of the same octets further back.
fn earlier(octets: &[u8], at: usize, last_at: &[usize]) -> Option<(usize, usize)> {
    let place = last_at[hash_at(octets, at)?].checked_sub(1)?;
    let distance = at - place;
    if distance > WINDOW {
        return None;
    }
    let same = octets[place..].iter().zip(&octets[at..]);
    let length = same.take(MATCH_MAX).take_while(|(a, b)| a == b).count();
    (length >= MATCH_MIN).then_some((distance, length))
}

/// Writes bits, the lowest of each octet first.
struct Writer {
    out: Vec<u8>,
    held: u64,
    count: u32,
}

impl Writer {
    fn put(&mut self, value: u32, bits: u32) {
        self.held |= u64::from(value) << self.count;
        self.count += bits;
        while self.count >= 8 {
            self.out.push(self.held as u8);
            self.held >>= 8;
            self.count -= 8;
        }
    }

    /// A code stands with its highest bit first.
    fn code(&mut self, code: u32, bits: u32) {
        self.put(code.reverse_bits() >> (32 - bits), bits);
    }

    /// A symbol of the fixed code (RFC 1951 §3.2.6).
    fn symbol(&mut self, symbol: u16) {
        let n = u32::from(symbol);
        match symbol {
            0..=143 => self.code(0x30 + n, 8),
            144..=255 => self.code(0x190 + n - 144, 9),
            256..=279 => self.code(n - 256, 7),
            _ => self.code(0xc0 + n - 280, 8),
        }
    }

    fn back(&mut self, distance: usize, length: usize) {
        let place = place_in(&LENGTHS, length);
        self.symbol(END_OF_BLOCK + 1 + place as u16);
        self.extra(&LENGTHS, place, length);
        let place = place_in(&DISTANCES, distance);
        self.code(place as u32, 5);
        self.extra(&DISTANCES, place, distance);
    }

    fn extra(&mut self, table: &[(u16, u8)], place: usize, value: usize) {
        let (base, extra) = table[place];
        self.put((value - usize::from(base)) as u32, u32::from(extra));
    }

    fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.put(0, 8 - self.count);
        }
        self.out
    }
}

fn place_in(table: &[(u16, u8)], value: usize) -> usize {
    let place = table.iter().rposition(|(base, _)| usize::from(*base) <= value);
    place.unwrap_or(0)
}

/// The checksum of gzip (RFC 1952 §8): CRC-32 of ISO 3309.
fn crc32(octets: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0u32; 256];
        let mut i = 0;
        while i < 256 {
            let mut n = i as u32;
            let mut bit = 0;
            while bit < 8 {
                n = if n & 1 == 1 {
                    0xedb8_8320 ^ (n >> 1)
                } else {
                    n >> 1
                };
                bit += 1;
            }
            table[i] = n;
            i += 1;
        }
        table
    };
    let step = |crc: u32, octet: &u8| TABLE[((crc ^ u32::from(*octet)) & 0xff) as usize] ^ (crc >> 8);
    !octets.iter().fold(!0, step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 1 << 20;

    #[test]
    fn what_others_packed_is_unpacked() {
        // Python's gzip.compress: with its own codes, stored, fixed; and gzip(1) with a name.
        for (hex, text) in VECTORS {
            assert_eq!(unpack(&octets(hex), MAX).unwrap(), text.as_bytes(), "{hex}");
        }
    }

    #[test]
    fn what_repeats_gets_short() {
        let text = "\"result-type\": \"certificate-expired\",\n".repeat(1_000);
        let packed = pack(text.as_bytes());
        assert!(packed.len() * 50 < text.len(), "{}", packed.len());
        assert_eq!(unpack(&packed, text.len()).unwrap(), text.as_bytes());
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = pack(&vec![0; 20 * MAX]);
        assert!(bomb.len() < MAX);
        assert_eq!(unpack(&bomb, MAX), Err(GzipError::TooLarge(MAX)));
    }

    #[test]
    fn blocks_that_hold_nothing_are_counted() {
        // Four empty blocks with the fixed code, of ten bits each: not the last, 01, end of block.
        let four = [0b0000_0010, 0b0000_1000, 0b0010_0000, 0b1000_0000, 0];
        let empty = |blocks: usize| {
            let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
            packed.extend(four.repeat(blocks / 4));
            // The last one, and the checks of no octets.
            packed.extend([0b0000_0011, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            packed
        };
        assert_eq!(unpack(&empty(4_000), MAX), Ok(Vec::new()));
        let many = unpack(&empty(4 * BLOCKS_MAX), MAX);
        assert_eq!(many, Err(GzipError::TooManyBlocks(BLOCKS_MAX)));
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        let good = pack(b"good text, good text");
        assert_eq!(unpack(b"PK\x03\x04 and so on", MAX), Err(GzipError::NotGzip));
        for end in 0..good.len() {
            let wrong = unpack(&good[..end], MAX);
            assert!(wrong.is_err(), "cut at {end}");
        }
        let mut damaged = good.clone();
        let place = damaged.len() - 5;
        damaged[place] ^= 1;
        assert_eq!(unpack(&damaged, MAX), Err(GzipError::Damaged), "the checksum");
        let behind = [good.as_slice(), &[0; 7]].concat();
        assert_eq!(unpack(&behind, MAX).unwrap(), b"good text, good text");
    }

    proptest! {
        #[test]
        fn there_and_back(text in proptest::collection::vec(0u8..4, 0..5_000), any in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert_eq!(unpack(&pack(&text), MAX).unwrap(), text);
            prop_assert_eq!(unpack(&pack(&any), MAX).unwrap(), any);
        }

        #[test]
        fn any_octets_are_answered(any in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
            packed.extend(&any);
            let _ = unpack(&packed, 4_096);
            let _ = unpack(&any, 4_096);
        }
    }

    fn octets(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex
            .bytes()
            .map(|b| (b as char).to_digit(16).unwrap() as u8)
            .collect();
        digits.chunks(2).map(|pair| (pair[0] << 4) | pair[1]).collect()
    }

    const VECTORS: &[(&str, &str)] = &[
        (
            "1f8b08000000000000031d8b411282301004bf3235e7bd486e79871fd88408d1902804052cff6e8a431fa6a7fa4ba5bd089da3ed3aa1f79ed618233cf68d96d731e0b546ff809bcb27e35636dcd7e9b9a0bcc38cdaeea4c78ebe0c02cdfd69da688405b9544cb159add094042ec43c9c057f7f1cc3e2337b000000",
            r#"{"a":1,"bb":22,"ccc":333,"zyx":"The quick brown fox jumps over the lazy dog, and the dog does not mind at all, being lazy"}"#,
        ),
        (
            "1f8b0800000000000003010600f9ff73746f7265640bf9435606000000",
            "stored",
        ),
        (
            "1f8b0808000000000003722e6a736f6e004bcbac484d514843900081e6898811000000",
            "fixed fixed fixed",
        ),
        ("1f8b080000000000000303000000000000000000", ""),
    ];
}
