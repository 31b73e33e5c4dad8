//! Copying of blocks and chunks, through the cache or past it.
//!
//! What is written once and read by somebody else later need not be fetched into the cache first: non-temporal
//! stores then move more bytes a second than memcpy (`cargo xtask bench -- prefetch`). What the faulting thread reads next is better there.
//! Nothing here starts threads: one faulting thread gets one core's bandwidth.

/// Whether what is copied stays in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// It is read at once, by the core that copies it.
    Keep,
    /// It is read later, or elsewhere.
    Bypass,
}

/// Copies `len` bytes.
///
/// # Safety
/// As for [`std::ptr::copy_nonoverlapping`] on bytes.
pub unsafe fn copy(target: *mut u8, source: *const u8, len: usize, caching: Caching) {
    // SAFETY: the caller's promise.
    unsafe {
        match caching {
            Caching::Keep => std::ptr::copy_nonoverlapping(source, target, len),
            Caching::Bypass => stream(target, source, len),
        }
    }
}

/// Copies `len` bytes with stores that bypass the cache where the machine has them.
///
/// # Safety
/// As for [`std::ptr::copy_nonoverlapping`] on bytes.
#[cfg(target_arch = "x86_64")]
unsafe fn stream(target: *mut u8, source: *const u8, len: usize) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    const LINE: usize = 64;
    if !target.addr().is_multiple_of(16) || !len.is_multiple_of(LINE) {
        // SAFETY: the caller's promise.
        return unsafe { std::ptr::copy_nonoverlapping(source, target, len) };
    }
    let mut at = 0;
    while at < len {
        // SAFETY: `at + LINE <= len`, both ranges are the caller's; the target is aligned to 16 bytes, and SSE2 is
        // part of x86-64.
        unsafe {
            let (from, to) = (source.add(at).cast::<__m128i>(), target.add(at).cast::<__m128i>());
            let line = [
                _mm_loadu_si128(from),
                _mm_loadu_si128(from.add(1)),
                _mm_loadu_si128(from.add(2)),
                _mm_loadu_si128(from.add(3)),
            ];
            _mm_stream_si128(to, line[0]);
            _mm_stream_si128(to.add(1), line[1]);
            _mm_stream_si128(to.add(2), line[2]);
            _mm_stream_si128(to.add(3), line[3]);
        }
        at += LINE;
    }
    // The stores are weakly ordered: they must be visible before the range is mapped for anyone.
    // SAFETY: SSE is part of x86-64.
    unsafe { _mm_sfence() };
}

/// Copies `len` bytes.
///
/// # Safety
/// As for [`std::ptr::copy_nonoverlapping`] on bytes.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn stream(target: *mut u8, source: *const u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(source, target, len) };
}

#[cfg(test)]
mod tests {
    #[test]
    fn copies_exactly_the_range() {
        for (offset, len) in [(0, 4096), (64, 128), (16, 64), (8, 64), (3, 61), (0, 0)] {
            let source: Vec<u8> = (0..8192u32).map(|i| (i % 251).to_le_bytes()[0]).collect();
            let mut target = vec![0xEEu8; 8192];
            // SAFETY: both ranges lie inside the vectors.
            unsafe { super::stream(target.as_mut_ptr().add(offset), source.as_ptr().add(offset), len) };
            for (i, byte) in target.iter().enumerate() {
                let inside = (offset..offset + len).contains(&i);
                assert_eq!(*byte, if inside { source[i] } else { 0xEE }, "byte {i}");
            }
        }
    }
}
