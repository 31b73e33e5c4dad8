//! Ordinary memory in huge pages, touched before use: what the ceilings copy, and what raw Vulkan imports.

use std::ptr::NonNull;

const HUGE_PAGE: usize = 2 << 20;

/// Anonymous memory of this process.
pub(crate) struct Buffer {
    mapping: NonNull<libc::c_void>,
    mapped: usize,
    start: NonNull<u8>,
    len: usize,
}

impl Buffer {
    /// `len` bytes, all written once. Huge pages are asked for, and had unless the machine is set to `never`.
    pub(crate) fn new(len: usize) -> Self {
        let mapped = len + HUGE_PAGE;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping where the kernel likes.
        let mapping = unsafe { libc::mmap(std::ptr::null_mut(), mapped, protection, flags, -1, 0) };
        assert!(mapping != libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        let mapping = NonNull::new(mapping).unwrap();
        let offset = mapping.cast::<u8>().align_offset(HUGE_PAGE);
        // SAFETY: `offset` is below HUGE_PAGE, of which the mapping has one more than `len`.
        let start = unsafe { mapping.cast::<u8>().add(offset) };
        let mut buffer = Self { mapping, mapped, start, len };
        // SAFETY: advice on, then bytes of, our own mapping.
        unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        buffer.bytes_mut().fill(1);
        buffer
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes of ours, initialised by the kernel.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    pub(crate) fn floats(&self) -> &[f32] {
        // SAFETY: as above; it is aligned to a huge page, and all bits are floats.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len / 4) }
    }

    pub(crate) fn floats_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len / 4) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: made by mmap with this length; nothing borrows it any more.
        unsafe { libc::munmap(self.mapping.as_ptr(), self.mapped) };
    }
}
