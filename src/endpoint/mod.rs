//! endpoint

/// Groups of routes that a pool's `routes` setting names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteGroup {
    /// `assign`: GET and POST `/v1/assign`, and `/v1/assign/{experiment}`.
    Assign,
    /// `batch`: POST `/v1/batch`.
    Batch,
    /// `health`: GET `/livez`, `/readyz`.
    Health,
    /// `metrics`: GET `/metrics`.
    Metrics,
}

impl RouteGroup {
    /// Every group, by the name that settings give it.
    pub const ALL: &'static [(&'static str, RouteGroup)] = &[
        ("assign", RouteGroup::Assign),
        ("batch", RouteGroup::Batch),
        ("health", RouteGroup::Health),
        ("metrics", RouteGroup::Metrics),
    ];

    /// Whether its routes record exposures.
    #[must_use]
    pub fn records(self) -> bool {
        matches!(self, RouteGroup::Assign | RouteGroup::Batch)
    }
}

/// How a pool's routes answer, from the settings.
#[derive(Debug, Clone, Copy)]
pub struct AppOptions {
    /// `validation = "strict"`: a value of the wrong type is refused with 422.
    pub validation_strict: bool,
    /// Record answers without an assignment, too.
    pub record_empty: bool,
    /// Record the attributes as they came.
    pub record_context: bool,
    /// Largest body of a batch, in bytes.
    pub batch_body_size_max: usize,
}
