//! A store in memory, for tests of what stands above.
