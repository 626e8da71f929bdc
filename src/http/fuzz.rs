//! Fuzz targets as plain functions.

/// Any bytes as a connection's input.
pub fn fuzz_request_head(data: &[u8]) {
    let _ = data;
}

/// Any bytes as a body.
pub fn fuzz_body_scanner(data: &[u8]) {
    let _ = data;
}
