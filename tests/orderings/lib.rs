//! The ring's own source (`src/exposure/ring/mod.rs` and what is below it), compiled
//! over loom's atomics. Each ordering it relies on can be weakened from outside,
//! so that a test shows which of them the ring needs, and that the model sees it.

#[path = "../../src/limits.rs"]
#[allow(dead_code, reason = "the ring needs one of them")]
pub mod limits;

pub mod exposure {
    //! As in splitd.

    pub mod atomic;
    #[path = "../../../src/exposure/checksum.rs"]
    pub mod checksum;
    #[path = "../../../src/exposure/ring/mod.rs"]
    pub mod ring;
}
