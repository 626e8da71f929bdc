//! A batch of spans as a collector takes it: `ExportTraceServiceRequest` of
//! opentelemetry-proto v1, with one resource (the instance) and one scope.

use crate::exposure::record::push_field;

use super::otlp::{
    RESOURCE, RESOURCE_ATTRIBUTES, RESOURCE_SPANS, SCOPE, SCOPE_NAME, SCOPE_SPANS, SCOPE_VERSION, text,
};

/// The body of `POST /v1/traces` for records of rings, one behind the other.
#[must_use]
pub fn request(instance: u64, records: &[u8]) -> Vec<u8> {
    let mut resource = Vec::new();
    let version = env!("CARGO_PKG_VERSION");
    text(&mut resource, RESOURCE_ATTRIBUTES, "service.name", "splitd");
    text(&mut resource, RESOURCE_ATTRIBUTES, "service.version", version);
    text(&mut resource, RESOURCE_ATTRIBUTES, "service.instance.id", &format!("{instance:016x}"));
    let mut scope = Vec::new();
    push_field(&mut scope, SCOPE_NAME, b"splitd");
    push_field(&mut scope, SCOPE_VERSION, version.as_bytes());
    let mut scope_spans = Vec::with_capacity(records.len() + scope.len() + 8);
    push_field(&mut scope_spans, SCOPE, &scope);
    scope_spans.extend_from_slice(records);
    let mut resource_spans = Vec::with_capacity(scope_spans.len() + resource.len() + 16);
    push_field(&mut resource_spans, RESOURCE, &resource);
    push_field(&mut resource_spans, SCOPE_SPANS, &scope_spans);
    let mut request = Vec::with_capacity(resource_spans.len() + 8);
    push_field(&mut request, RESOURCE_SPANS, &resource_spans);
    request
}
