//! What is judged of a head whose framing is sound, and where a body ends.

use super::super::chunked::{Decoder, Next};
use super::super::request::{self, BodyLength, Expect, Head, HeadScan, Method};
use super::super::response::Status;
use super::super::service::{Admission, BodyMode, Media, Refusal, Service};
use super::super::workspace::Limits;

/// 404, 405, 413, 415, 417, in this order; framing was judged before.
pub(super) fn judge<S: Service>(
    head: &Head<'_>,
    limits: &Limits,
    service: &mut S,
) -> Result<Admission, Refusal> {
    let admission = service.admit(head).map_err(|refusal| match (refusal.status, head.method) {
        // RFC 9110 9.1: 405 is for methods the server knows.
        (Status::MethodNotAllowed, Method::Unknown) => {
            Refusal::new(Status::NotImplemented, "the method is not known")
        }
        _ => refusal,
    })?;
    let body_size_max = match admission.body {
        BodyMode::Whole => admission.body_size_max.min(limits.body_size_max as u32),
        BodyMode::Lines => admission.body_size_max,
    };
    if matches!(head.body, BodyLength::Known(size) if size > u64::from(body_size_max)) {
        return Err(Refusal::new(Status::ContentTooLarge, "the body is too large"));
    }
    if !head.content_type.is_none_or(|content_type| takes(admission.media, content_type)) {
        return Err(Refusal::new(Status::UnsupportedMediaType, "the content type is not JSON"));
    }
    if head.expect == Expect::Other {
        return Err(Refusal::new(Status::ExpectationFailed, "no expectation but 100-continue is met"));
    }
    Ok(admission)
}

fn takes(media: Media, content_type: &[u8]) -> bool {
    // Parameters (a charset, say) change nothing: JSON is UTF-8 (RFC 8259 8.1).
    let essence = content_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let is = |name: &str| essence.eq_ignore_ascii_case(name.as_bytes());
    let ends = |suffix: &str| {
        essence.len() > suffix.len()
            && essence[essence.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes())
    };
    let json = || is("application/json") || ends("+json");
    match media {
        Media::Any => true,
        Media::Json => json(),
        Media::JsonLines => {
            json() || is("application/x-ndjson") || is("application/ndjson") || is("application/jsonl")
        }
    }
}

/// Does this begin with a request that can be judged to its end?
pub(super) fn holds_request(bytes: &[u8], limits: &Limits) -> bool {
    match request::scan_head(bytes, 0, limits.head_size_max) {
        Err(_) => true,
        Ok(HeadScan::Partial(_)) => false,
        Ok(HeadScan::Complete(size)) => request::parse_head(&bytes[..size])
            .map_or(true, |head| body_end(head.body, &bytes[size..]).is_some()),
    }
}

/// Where a body ends in what came behind its head, if it is whole (or broken).
pub(super) fn body_end(length: BodyLength, rest: &[u8]) -> Option<usize> {
    match length {
        BodyLength::None => Some(0),
        BodyLength::Known(size) => usize::try_from(size).ok().filter(|&size| size <= rest.len()),
        BodyLength::Chunked => {
            let mut decoder = Decoder::default();
            let mut at = 0;
            loop {
                let Ok((taken, next)) = decoder.framing(&rest[at..]) else {
                    return Some(rest.len());
                };
                at += taken;
                match next {
                    Next::End => return Some(at),
                    Next::More => return None,
                    Next::Data(size) => {
                        let size = usize::try_from(size).ok().filter(|&size| size <= rest.len() - at)?;
                        decoder.data_taken(size);
                        at += size;
                    }
                }
            }
        }
    }
}
