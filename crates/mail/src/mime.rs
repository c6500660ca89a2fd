//! The MIME structure of a message: parts with their places, found in one pass.
