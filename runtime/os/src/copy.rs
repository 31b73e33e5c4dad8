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
/// Several pages by turns, a line of each: processors look ahead within a page only, so that one page after the other
/// keeps one stream of memory busy where there is room for more.
///
/// # Safety
/// As for [`std::ptr::copy_nonoverlapping`] on bytes.
#[cfg(target_arch = "x86_64")]
unsafe fn stream(target: *mut u8, source: *const u8, len: usize) {
    use std::arch::x86_64::_mm_sfence;
    const PAGES: usize = 4;
    const PAGE: usize = 4096;
    if !target.addr().is_multiple_of(16) || !len.is_multiple_of(LINE) {
        // SAFETY: the caller's promise.
        return unsafe { std::ptr::copy_nonoverlapping(source, target, len) };
    }
    let by_turns = len - len % (PAGES * PAGE);
    for pages in (0..by_turns).step_by(PAGES * PAGE) {
        for line in (pages..pages + PAGE).step_by(LINE) {
            for page in 0..PAGES {
                let at = line + page * PAGE;
                // SAFETY: `at + LINE <= by_turns <= len`, both ranges are the caller's, the target is aligned.
                unsafe { stream_line(target.add(at), source.add(at)) };
            }
        }
    }
    for at in (by_turns..len).step_by(LINE) {
        // SAFETY: `at + LINE <= len`; as above.
        unsafe { stream_line(target.add(at), source.add(at)) };
    }
    // The stores are weakly ordered: they must be visible before the range is mapped for anyone.
    // SAFETY: SSE is part of x86-64.
    unsafe { _mm_sfence() };
}

/// Bytes of a cache line.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Copies a line past the cache.
///
/// # Safety
/// A line may be read from `source` and written to `target`, which is aligned to 16 bytes.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn stream_line(target: *mut u8, source: *const u8) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};
    // SAFETY: the caller's promise; SSE2 is part of x86-64.
    unsafe {
        let (from, to) = (source.cast::<__m128i>(), target.cast::<__m128i>());
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
        for (offset, len) in [(0, 4096), (64, 128), (16, 64), (8, 64), (3, 61), (0, 0), (16, 32768), (0, 16384 + 192)] {
            let source: Vec<u8> = (0..65536u32).map(|i| (i % 251).to_le_bytes()[0]).collect();
            let mut target = vec![0xEEu8; 65536];
            // SAFETY: both ranges lie inside the vectors.
            unsafe { super::stream(target.as_mut_ptr().add(offset), source.as_ptr().add(offset), len) };
            for (i, byte) in target.iter().enumerate() {
                let inside = (offset..offset + len).contains(&i);
                assert_eq!(*byte, if inside { source[i] } else { 0xEE }, "byte {i}");
            }
        }
    }
}
