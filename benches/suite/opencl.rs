//! As much of OpenCL as a peer needs, from the loader of this machine at run time: a device with fine- or coarse-grained
//! shared virtual memory, a kernel, launches one at a time. Names and numbers are those of CL/cl.h.

use std::ffi::{CString, c_char, c_void};
use std::ptr::{null, null_mut};

use libloading::Library;

type Handle = *mut c_void;
type Status = i32;

const DEVICE_NAME: u32 = 0x102b;
const DRIVER_VERSION: u32 = 0x102d;
const DEVICE_SVM_CAPABILITIES: u32 = 0x1053;
const DEVICE_TYPE_ALL: u64 = 0xffff_ffff;
const SVM_FINE_GRAIN_BUFFER: u64 = 1 << 1;
/// For allocations: also their fine grain has this value.
const MEM_SVM_FINE_GRAIN_BUFFER: u64 = 1 << 10;
const MEM_READ_WRITE: u64 = 1;
const MAP_READ_AND_WRITE: u64 = 3;
const BLOCKING: u32 = 1;

/// The entry points, by their names without `cl`.
macro_rules! entry_points {
    ($($field:ident = $name:literal: fn($($argument:ty),*) -> $result:ty;)*) => {
        struct EntryPoints {
            $($field: unsafe extern "C" fn($($argument),*) -> $result,)*
            /// Last: the pointers above lead into it.
            _library: Library,
        }

        impl EntryPoints {
            fn load(library: Library) -> Result<Self, String> {
                // SAFETY: these are the types that CL/cl.h declares.
                unsafe {
                    $(let $field = *library.get($name.as_bytes()).map_err(|error| format!("{}: {error}", $name))?;)*
                    Ok(Self { $($field,)* _library: library })
                }
            }
        }
    };
}

entry_points! {
    platform_ids = "clGetPlatformIDs": fn(u32, *mut Handle, *mut u32) -> Status;
    device_ids = "clGetDeviceIDs": fn(Handle, u64, u32, *mut Handle, *mut u32) -> Status;
    device_info = "clGetDeviceInfo": fn(Handle, u32, usize, *mut c_void, *mut usize) -> Status;
    create_context = "clCreateContext":
        fn(*const isize, u32, *const Handle, *const c_void, *mut c_void, *mut Status) -> Handle;
    create_queue = "clCreateCommandQueueWithProperties": fn(Handle, Handle, *const u64, *mut Status) -> Handle;
    create_program = "clCreateProgramWithSource":
        fn(Handle, u32, *const *const c_char, *const usize, *mut Status) -> Handle;
    build_program = "clBuildProgram":
        fn(Handle, u32, *const Handle, *const c_char, *const c_void, *mut c_void) -> Status;
    create_kernel = "clCreateKernel": fn(Handle, *const c_char, *mut Status) -> Handle;
    set_argument = "clSetKernelArg": fn(Handle, u32, usize, *const c_void) -> Status;
    set_pointer = "clSetKernelArgSVMPointer": fn(Handle, u32, *const c_void) -> Status;
    launch = "clEnqueueNDRangeKernel":
        fn(Handle, Handle, u32, *const usize, *const usize, *const usize, u32, *const Handle, *mut Handle) -> Status;
    finish = "clFinish": fn(Handle) -> Status;
    svm_alloc = "clSVMAlloc": fn(Handle, u64, usize, u32) -> *mut c_void;
    svm_free = "clSVMFree": fn(Handle, *mut c_void) -> ();
    svm_map = "clEnqueueSVMMap":
        fn(Handle, u32, u64, *mut c_void, usize, u32, *const Handle, *mut Handle) -> Status;
    svm_unmap = "clEnqueueSVMUnmap": fn(Handle, *mut c_void, u32, *const Handle, *mut Handle) -> Status;
    create_buffer = "clCreateBuffer": fn(Handle, u64, usize, *mut c_void, *mut Status) -> Handle;
    write_buffer = "clEnqueueWriteBuffer":
        fn(Handle, Handle, u32, usize, usize, *const c_void, u32, *const Handle, *mut Handle) -> Status;
    release_buffer = "clReleaseMemObject": fn(Handle) -> Status;
    release_kernel = "clReleaseKernel": fn(Handle) -> Status;
    release_program = "clReleaseProgram": fn(Handle) -> Status;
    release_queue = "clReleaseCommandQueue": fn(Handle) -> Status;
    release_context = "clReleaseContext": fn(Handle) -> Status;
}

fn checked(call: &str, status: Status) -> Result<(), String> {
    if status == 0 { Ok(()) } else { Err(format!("{call} fails with {status}")) }
}

/// A device with a queue.
pub(crate) struct OpenCl {
    entry: EntryPoints,
    device: Handle,
    context: Handle,
    queue: Handle,
    /// As the device and its driver call themselves.
    pub(crate) name: String,
    /// Whether the CPU may touch shared memory that is not mapped, while no kernel runs.
    pub(crate) fine_grained: bool,
}

/// A kernel for floats in shared memory.
pub(crate) struct Kernel<'a> {
    raw: Handle,
    program: Handle,
    cl: &'a OpenCl,
}

/// Floats in shared virtual memory.
pub(crate) struct Floats<'a> {
    start: *mut f32,
    len: usize,
    cl: &'a OpenCl,
}

/// A buffer of the device's.
pub(crate) struct Bytes<'a> {
    raw: Handle,
    len: usize,
    cl: &'a OpenCl,
}

impl OpenCl {
    /// The first device that has shared virtual memory.
    pub(crate) fn open() -> Result<Self, String> {
        const LOADER: &str = "libOpenCL.so.1";
        // SAFETY: the loader of the system, whose initialisers are its own business.
        let library = unsafe { Library::new(LOADER) };
        let install = "apt-get install ocl-icd-libopencl1 pocl-opencl-icd";
        let library = library.map_err(|error| format!("there is no OpenCL loader ({install}): {error}"))?;
        let entry = EntryPoints::load(library)?;
        let mut found = None;
        for device in entry.devices() {
            // The types and sizes are those that CL/cl.h tells.
            let capabilities = entry.number(device, DEVICE_SVM_CAPABILITIES);
            if capabilities != 0 {
                found = Some((device, capabilities));
                break;
            }
        }
        let (device, capabilities) =
            found.ok_or_else(|| format!("no OpenCL device here has shared virtual memory ({install})"))?;
        let name = format!("{} ({})", entry.text(device, DEVICE_NAME), entry.text(device, DRIVER_VERSION));
        let fine_grained = capabilities & SVM_FINE_GRAIN_BUFFER != 0;
        let mut status = 0;
        // SAFETY: handles of this loader's; arrays of the lengths given; no callback.
        let context =
            unsafe { (entry.create_context)(null(), 1, &raw const device, null(), null_mut(), &raw mut status) };
        checked("clCreateContext", status)?;
        // SAFETY: as above; no properties.
        let queue = unsafe { (entry.create_queue)(context, device, null(), &raw mut status) };
        checked("clCreateCommandQueueWithProperties", status)?;
        Ok(Self { entry, device, context, queue, name, fine_grained })
    }

    /// Builds the kernel `name` of `source`.
    pub(crate) fn kernel(&self, source: &str, name: &str) -> Result<Kernel<'_>, String> {
        let (text, length) = (source.as_ptr().cast::<c_char>(), source.len());
        let options = CString::new("-cl-std=CL2.0").unwrap();
        let name = CString::new(name).unwrap();
        let mut status = 0;
        // SAFETY: one string with its length; handles of ours; strings that end in NUL.
        unsafe {
            let program =
                (self.entry.create_program)(self.context, 1, &raw const text, &raw const length, &raw mut status);
            checked("clCreateProgramWithSource", status)?;
            let (device, none) = (&raw const self.device, null_mut());
            checked("clBuildProgram", (self.entry.build_program)(program, 1, device, options.as_ptr(), none, none))?;
            let raw = (self.entry.create_kernel)(program, name.as_ptr(), &raw mut status);
            checked("clCreateKernel", status)?;
            Ok(Kernel { raw, program, cl: self })
        }
    }

    /// Shared memory: of fine grain where the device has it.
    pub(crate) fn floats(&self, len: usize) -> Result<Floats<'_>, String> {
        let flags = MEM_READ_WRITE | if self.fine_grained { MEM_SVM_FINE_GRAIN_BUFFER } else { 0 };
        // SAFETY: a context of ours; 0 is the default alignment.
        let start = unsafe { (self.entry.svm_alloc)(self.context, flags, 4 * len, 0) }.cast::<f32>();
        if start.is_null() {
            Err(format!("clSVMAlloc has no {len} floats"))
        } else {
            Ok(Floats { start, len, cl: self })
        }
    }

    /// A buffer of the device's, all of it written once.
    pub(crate) fn bytes(&self, len: usize) -> Result<Bytes<'_>, String> {
        let mut status = 0;
        // SAFETY: a context of ours, and no memory of the host's.
        let raw = unsafe { (self.entry.create_buffer)(self.context, MEM_READ_WRITE, len, null_mut(), &raw mut status) };
        checked("clCreateBuffer", status)?;
        let mut bytes = Bytes { raw, len, cl: self };
        self.write(&mut bytes, 0, &vec![1; len])?;
        Ok(bytes)
    }

    /// Copies to a buffer, from byte `at` of it on, and waits for that.
    pub(crate) fn write(&self, target: &mut Bytes<'_>, at: usize, source: &[u8]) -> Result<(), String> {
        assert!(at + source.len() <= target.len, "beyond the buffer");
        let (start, len) = (source.as_ptr().cast(), source.len());
        // SAFETY: a buffer of ours that is long enough; the source stays until the call is over; no events.
        let status = unsafe {
            (self.entry.write_buffer)(self.queue, target.raw, BLOCKING, at, len, start, 0, null(), null_mut())
        };
        checked("clEnqueueWriteBuffer", status)
    }
}

impl EntryPoints {
    fn devices(&self) -> Vec<Handle> {
        let mut platforms = [null_mut(); 16];
        let mut count = 0;
        // SAFETY: as many places as are said. Without an ICD it fails, and the count stays 0.
        unsafe { (self.platform_ids)(16, platforms.as_mut_ptr(), &raw mut count) };
        let mut all = Vec::new();
        for platform in &platforms[..(count as usize).min(16)] {
            let mut devices = [null_mut(); 16];
            let mut count = 0;
            // SAFETY: as above.
            unsafe { (self.device_ids)(*platform, DEVICE_TYPE_ALL, 16, devices.as_mut_ptr(), &raw mut count) };
            all.extend_from_slice(&devices[..(count as usize).min(16)]);
        }
        all
    }

    /// A bit field; 0 where the device does not know what is asked for.
    fn number(&self, device: Handle, what: u32) -> u64 {
        let mut value = 0u64;
        // SAFETY: a device of this loader's, and 8 bytes for at most as many.
        unsafe { (self.device_info)(device, what, 8, (&raw mut value).cast(), null_mut()) };
        value
    }

    fn text(&self, device: Handle, what: u32) -> String {
        let mut bytes = [0u8; 256];
        // SAFETY: a device of this loader's, and as many bytes as are said.
        unsafe { (self.device_info)(device, what, bytes.len(), bytes.as_mut_ptr().cast(), null_mut()) };
        String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
    }
}

impl Kernel<'_> {
    /// Runs it with pointers, then one float, on `invocations`, and waits for it.
    ///
    /// # Safety
    /// The kernel takes these arguments, and touches nothing but the given memory.
    pub(crate) unsafe fn launch(&self, pointers: &[&Floats<'_>], float: f32, invocations: usize) -> Result<(), String> {
        let entry = &self.cl.entry;
        for (index, floats) in (0..).zip(pointers) {
            // SAFETY: shared memory of the same context.
            checked("clSetKernelArgSVMPointer", unsafe { (entry.set_pointer)(self.raw, index, floats.start.cast()) })?;
        }
        let index = u32::try_from(pointers.len()).unwrap();
        // SAFETY: 4 bytes; one dimension; no events. The rest is the caller's promise.
        unsafe {
            checked("clSetKernelArg", (entry.set_argument)(self.raw, index, 4, (&raw const float).cast()))?;
            let (queue, sizes) = (self.cl.queue, &raw const invocations);
            let launched = (entry.launch)(queue, self.raw, 1, null(), sizes, null(), 0, null(), null_mut());
            checked("clEnqueueNDRangeKernel", launched)?;
            checked("clFinish", (entry.finish)(queue))
        }
    }
}

impl Floats<'_> {
    /// The CPU's turn: no kernel runs meanwhile.
    pub(crate) fn with(&mut self, work: impl FnOnce(&mut [f32])) -> Result<(), String> {
        let (entry, queue) = (&self.cl.entry, self.cl.queue);
        let (start, bytes) = (self.start.cast::<c_void>(), 4 * self.len);
        // SAFETY: the memory is ours for as many bytes, and mapped for the CPU, which only coarse grain needs. What the
        // CPU reads was written or is whatever the driver left, which any bits of a float are.
        unsafe {
            let mapped = (entry.svm_map)(queue, BLOCKING, MAP_READ_AND_WRITE, start, bytes, 0, null(), null_mut());
            checked("clEnqueueSVMMap", mapped)?;
            work(std::slice::from_raw_parts_mut(self.start, self.len));
            checked("clEnqueueSVMUnmap", (entry.svm_unmap)(queue, start, 0, null(), null_mut()))?;
            checked("clFinish", (entry.finish)(queue))
        }
    }
}

impl Drop for Floats<'_> {
    fn drop(&mut self) {
        // SAFETY: ours, and every launch was waited for.
        unsafe { (self.cl.entry.svm_free)(self.cl.context, self.start.cast()) };
    }
}

impl Drop for Bytes<'_> {
    fn drop(&mut self) {
        // SAFETY: ours, and every write was waited for.
        unsafe { (self.cl.entry.release_buffer)(self.raw) };
    }
}

impl Drop for Kernel<'_> {
    fn drop(&mut self) {
        // SAFETY: ours, and every launch was waited for.
        unsafe {
            (self.cl.entry.release_kernel)(self.raw);
            (self.cl.entry.release_program)(self.program);
        }
    }
}

impl Drop for OpenCl {
    fn drop(&mut self) {
        // SAFETY: ours; what was made of them borrows `self`, so is gone.
        unsafe {
            (self.entry.release_queue)(self.queue);
            (self.entry.release_context)(self.context);
        }
    }
}
