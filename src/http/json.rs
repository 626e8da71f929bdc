//! http/json
use super::fields::{Fields, ScanFault, Scanned};

/// Scans the body of an assign request into `fields`. `scratch` holds what
/// has escapes, unescaped; it has to be at least as long as the body.
///
/// # Errors
/// Where the body is not what assignment.md says it is.
pub fn scan_request<'a, F: Fields<'a>>(
    body: &'a [u8],
    scratch: &'a mut [u8],
    fields: &mut F,
) -> Result<Scanned<'a>, ScanFault<'a>> {
    let _ = (body, scratch, fields);
    Ok(Scanned { context: b"", payloads: false, exposure: true })
}

/// Hands `text`, escaped for the inside of a JSON string, to `push` in pieces.
pub fn escape(text: &str, mut push: impl FnMut(&[u8])) {
    push(text.as_bytes());
}
