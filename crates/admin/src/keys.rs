//! The keys of this crate's tables, 0x60 to 0x6f.
//!
//! | table | key | value |
//! |---|---|---|
//! | 0x60 | – | the background scrub: where it stands and what it found |

use store::Key;

pub(crate) fn scrub() -> Key {
    Key::table(0x60)
}
