//! Checksums of blobs: one word in the blob's row vouches for every octet.
//!
//! A blob of at most [`CHUNK`] octets: the word is the crc32c of its octets. A longer one: the
//! octets are followed by a table, the crc32c of each chunk of [`CHUNK`] octets (the last may be
//! shorter), and the word is the crc32c of that table. So a range is verified by reading the table
//! and the chunks that the range touches. Never: I/O.

/// Octets that one checksum covers.
pub(crate) const CHUNK: usize = 64 * 1024;

/// Octets of the table behind a blob of this length.
pub(crate) fn table_octets(len: u64) -> u64 {
    if len <= CHUNK as u64 {
        0
    } else {
        len.div_ceil(CHUNK as u64) * 4
    }
}

/// Sums up a blob that comes in pieces.
#[derive(Default)]
pub(crate) struct Summer {
    table: Vec<u8>,
    current: u32,
    filled: usize,
}

impl Summer {
    /// More octets.
    pub(crate) fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.filled == CHUNK {
                self.table.extend_from_slice(&self.current.to_be_bytes());
                (self.current, self.filled) = (0, 0);
            }
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.filled));
            self.current = crc32c::crc32c_append(self.current, now);
            self.filled += now.len();
            bytes = later;
        }
    }

    /// The table (empty for a short blob) and the word.
    pub(crate) fn finish(mut self) -> (Vec<u8>, u32) {
        if self.table.is_empty() {
            return (self.table, self.current);
        }
        self.table.extend_from_slice(&self.current.to_be_bytes());
        let word = crc32c::crc32c(&self.table);
        (self.table, word)
    }
}

/// The table and the word of a whole blob.
pub(crate) fn sum(bytes: &[u8]) -> (Vec<u8>, u32) {
    let mut summer = Summer::default();
    summer.add(bytes);
    summer.finish()
}

/// Whether octets with the table behind them are what the word vouches for.
pub(crate) fn whole_is_good(bytes_and_table: &[u8], len: usize, word: u32) -> bool {
    let Some((bytes, table)) = bytes_and_table.split_at_checked(len) else {
        return false;
    };
    let (good_table, good_word) = sum(bytes);
    word == good_word && table == good_table
}

/// Whether chunks, beginning with number `first`, match the table.
pub(crate) fn chunks_are_good(chunks: &[u8], first: usize, table: &[u8]) -> bool {
    let (sums, _) = table.as_chunks::<4>();
    chunks.chunks(CHUNK).enumerate().all(|(i, chunk)| {
        sums.get(first + i)
            .is_some_and(|sum| u32::from_be_bytes(*sum) == crc32c::crc32c(chunk))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_the_length_they_say() {
        for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1] {
            let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let (table, word) = sum(&bytes);
            assert_eq!(table.len() as u64, table_octets(len as u64), "{len}");
            let mut summer = Summer::default();
            bytes.chunks(1000).for_each(|piece| summer.add(piece));
            assert_eq!(summer.finish(), (table.clone(), word));
            let mut all = [bytes, table].concat();
            assert!(whole_is_good(&all, len, word));
            if let Some(last) = all.last_mut() {
                *last ^= 1;
                assert!(!whole_is_good(&all, len, word));
            }
        }
    }
}
