//! The logger end to end, with real files and threads.
