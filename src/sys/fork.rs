//! sys/fork
