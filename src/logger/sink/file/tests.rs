//! The file sink on real files.
