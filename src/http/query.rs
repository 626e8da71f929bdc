//! http/query
