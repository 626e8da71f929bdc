//! http/json
