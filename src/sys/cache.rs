//! What the caches are told ahead of time.

use std::sync::atomic::AtomicU64;

/// Words in a cache line of 64 bytes.
const LINE_WORDS: usize = 8;

/// Has these words brought into the caches in order to be written soon, and their
/// pages into the translation buffer. A hint: nothing that can be seen changes, and
/// on other processors than x86-64 it is nothing at all.
#[inline]
pub fn will_write(words: &[AtomicU64]) {
    #[cfg(target_arch = "x86_64")]
    for line in words.chunks(LINE_WORDS) {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: a prefetch reads and writes nothing and never faults, whatever the address
        // (Intel SDM, PREFETCHW); this one is a live reference's besides.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (words, LINE_WORDS);
}
