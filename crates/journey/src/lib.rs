//! The record of each message's way, and its telling in words.
