//! http/connection
