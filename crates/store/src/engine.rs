//! The embedded engine (under construction).
/// A synced file that holds a large staged blob.
pub struct StagedFile;
