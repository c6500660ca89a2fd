//! The octets of a file, in pages that copies share: an image of a whole disk costs little.

use std::sync::Arc;

/// The unit that a disk writes whole.
pub(super) const SECTOR: usize = 512;
/// The unit in which room is given.
pub(super) const PAGE: usize = 4096;

/// What stands in a file, with holes where nothing was ever written.
#[derive(Clone, Default, Debug)]
pub(super) struct Octets {
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
    len: u64,
}

impl Octets {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Octets of room in use.
    pub(super) fn room(&self) -> usize {
        self.pages.iter().flatten().count() * PAGE
    }

    /// Whether a page has room of its own already.
    pub(super) fn has_page(&self, page: usize) -> bool {
        self.pages.get(page).is_some_and(Option::is_some)
    }

    /// Reads at most to the end; answers how many octets.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let n = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        let mut at = offset as usize;
        let mut rest = &mut buf[..n];
        while !rest.is_empty() {
            let (page, from) = (at / PAGE, at % PAGE);
            let (now, later) = rest.split_at_mut((PAGE - from).min(rest.len()));
            match self.pages.get(page) {
                Some(Some(page)) => now.copy_from_slice(&page[from..from + now.len()]),
                _ => now.fill(0),
            }
            at += now.len();
            rest = later;
        }
        n
    }

    /// Writes, and grows when the end is beyond.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        self.put(bytes, offset);
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    /// Writes without a change of the length.
    fn put(&mut self, mut bytes: &[u8], offset: u64) {
        let mut at = offset as usize;
        let pages = (at + bytes.len()).div_ceil(PAGE);
        if self.pages.len() < pages {
            self.pages.resize(pages, None);
        }
        while !bytes.is_empty() {
            let (page, from) = (at / PAGE, at % PAGE);
            let (now, later) = bytes.split_at((PAGE - from).min(bytes.len()));
            let page = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[from..from + now.len()].copy_from_slice(now);
            at += now.len();
            bytes = later;
        }
    }

    /// Cuts, or grows by a hole.
    pub(super) fn set_len(&mut self, len: u64) {
        let (page, from) = (len as usize / PAGE, len as usize % PAGE);
        if let Some(Some(last)) = self.pages.get_mut(page).filter(|_| from > 0) {
            Arc::make_mut(last)[from..].fill(0);
        }
        self.pages.truncate((len as usize).div_ceil(PAGE));
        self.len = len;
    }

    /// Takes one sector from another file's octets, without a change of the length.
    pub(super) fn take_sector(&mut self, sector: u64, from: &Octets) {
        let at = sector as usize * SECTOR;
        let page = at / PAGE;
        match from.pages.get(page) {
            Some(Some(there)) => {
                let inside = at % PAGE;
                self.put(&there[inside..inside + SECTOR], at as u64);
            }
            // A hole reads as zeros; a hole that stays one costs nothing.
            _ if self.has_page(page) => self.put(&[0; SECTOR], at as u64),
            _ => {}
        }
    }

    /// The sectors from `start` on that are not in a hole.
    pub(super) fn sectors_from(&self, start: u64) -> Vec<u64> {
        const PER_PAGE: u64 = (PAGE / SECTOR) as u64;
        let first = start / PER_PAGE;
        let pages = self.pages.iter().enumerate().skip(first as usize);
        pages
            .filter(|(_, page)| page.is_some())
            .flat_map(|(n, _)| n as u64 * PER_PAGE..(n as u64 + 1) * PER_PAGE)
            .filter(|sector| *sector >= start)
            .collect()
    }

    /// All octets.
    pub(super) fn all(&self) -> Vec<u8> {
        let mut out = vec![0; self.len as usize];
        self.read(&mut out, 0);
        out
    }
}
