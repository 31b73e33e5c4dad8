//! Why safe programs cannot race with a kernel: each way in which a CPU thread and a kernel can meet, and what keeps them
//! apart. There is nothing to use here.
//!
//! Rust's rule is that what is written has one user, and what is read no writer. Kernels are threads that the compiler
//! does not see, so limosa hands out references only where none of them can be at work, and lets launches have only what
//! nobody has a reference to.
//!
//! | a CPU thread … | … and a kernel | kept apart by |
//! |---|---|---|
//! | holds a guard ([`read`](crate::UnifiedVec::read), [`write`](crate::UnifiedVec::write)) | is to be launched on it | the borrow checker: a [`Launch`](crate::Launch) borrows its arguments ([`Loan`](crate::Loan)), mutably where it writes, until it is submitted |
//! | asks for a guard | is in flight | the guard waits: a submitted launch is noted with the memory that it uses (a reader for writers, a writer for all) |
//! | holds two arguments of one launch that overlap | reads one, writes the other | the borrow checker, as above; vectors do not overlap, nor do the parts that [`split_at`](crate::UnifiedSliceMut::split_at) gives |
//! | holds a guard of one part of a vector | writes another part | parts do not overlap; in a block that both lie in, the CPU's touch waits |
//! | forgets an [`Event`](crate::Event), or drops it | is in flight | nothing depends on events: the launch keeps its memory and is waited for by marks of its own |
//! | drops a vector | is in flight | the launch shares in the ownership; memory is freed, and its address used again, when both are done |
//! | drops the context or a queue | is in flight | what was submitted goes on; a heap lives as long as any launch or allocation, and a queue's end is waited for, by a thread of limosa's where the dropping one may be waited for itself |
//! | is a callback, or polls an [`Event`](crate::Event) | is in flight | callbacks own what they capture; they reach unified memory by guards, like everybody |
//! | submits a fill, copy, prefetch or discard | is in flight, or is submitted | a [`Command`](crate::Command) borrows as a launch does; it is noted with the memory and waited for, and its kernel is limosa's own |
//! | does direct or asynchronous I/O through [`host_pin`](crate::UnifiedVec::host_pin) | is in flight, or is submitted | the pin waits for launches, launches wait for the pin; it borrows the vector mutably |
//! | discards a vector | is in flight | [`discard`](crate::UnifiedVec::discard) takes it mutably, and waits |
//! | touches a block beside the launch's in the same 64 KiB | holds that block | the touch waits in the kernel until the launch completes; no bytes are shared by two owners |
//! | reads what a kernel wrote | has completed | completion makes it visible: a barrier to the host in the launch, and the wait for its timeline |
//! | wrote what a kernel reads | begins | submission makes it visible (Vulkan specification, 7.9) |
//! | reads bytes of any kind that a kernel wrote | – | [`Shareable`](crate::Shareable): every bit pattern is a value; no references, no padding |
//! | touches memory that was lost with the device | – | guards give [`Poisoned`](crate::PagerError::Poisoned); raw touches raise SIGBUS; nothing reads as zeros in silence |
//! | gives memory or a kernel of another context to a launch | – | the launch is refused, by name |
//! | holds a reference into a collection of a [`UnifiedAllocator`](crate::UnifiedAllocator) | is to be launched on it | the borrow checker: the launch is lent the collection by value ([`Launch::lend`](crate::Launch::lend)), or by a borrow that lasts as long as a [`scope`](crate::scope()) |
//! | wants a collection back | is in flight | [`Lent::wait`](crate::Lent::wait) gives it when the launch is done; dropping a [`Lent`](crate::Lent) waits, forgetting it leaks; a scope waits before it ends, also where it panics |
//! | allocates, grows or frees by the allocator of a collection that is lent | is in flight | memory that a launch keeps is not freed or cut off, and not given to others |
//! | drops a collection of which contents were lost with the device | – | it is leaked where a launch was lent it; [`repair`](crate::Heap::repair) does not make zeros of what may have no such value; other touches raise SIGBUS |
//! | forks | – | the heap is not inherited: the child's touches raise SIGSEGV |
//!
//! Two launches that conflict never run at once: one begins when the other is over. On one in-order queue that is the
//! order of submission; else events decide, or nobody does. Each sees what those before it wrote. Memory of
//! [`Home::Shared`](crate::Home::Shared) is not held by launches, so those that conflict over it are put behind each other in
//! the order of submission, on whatever queues.
//!
//! # What is promised with `unsafe`
//! - [`Launch::submit`](crate::Launch::submit): that the kernel, given these arguments, touches nothing but what was
//!   declared, and that only as declared. A compiler for kernels could check it; SPIR-V with pointers cannot be.
//!   [`Kernel::promise`](crate::Kernel::promise) says it once for all launches, with what it asks of their arguments,
//!   which is checked at each; submitting those is safe. On
//!   [`ViewKind::Import`](crate::ViewKind::Import) with [`check`](crate::ContextBuilder::check) it is checked as it runs,
//!   by blocks of 64 KiB, and a launch that strays fails with kernel, address, and what is there.
//!   [`check`](crate::ContextBuilder::check) says what it cannot catch.
//! - [`Lending::submit`](crate::Lending::submit), [`Scope::submit`](crate::Scope::submit): besides, that the kernel does
//!   nothing with what is lent that a thread could not that was given it, and writes only values. Hence the bounds: what is
//!   lent is [`Send`]. Its contents need not be [`Shareable`](crate::Shareable): safe code puts anything into a collection,
//!   and nobody but the kernel's author knows what the kernel makes of it.
//! - Following a [`GpuPtr`](crate::GpuPtr), and raw memory given to a launch by
//!   [`with_raw`](crate::Launch::with_raw), [`with_range`](crate::Launch::with_range),
//!   [`keeps`](crate::Launch::keeps) or [`with_whole_heap`](crate::Launch::with_whole_heap): who uses it meanwhile is the caller's to order. In check
//!   mode, what was freed, what lies beyond an end, and what the launch did not declare are caught.
//! - [`Home::Shared`](crate::Home::Shared) memory that both sides use while a kernel runs. Guards of such vectors wait
//!   for launches like any other; only raw pointers reach it in between.
//! - Implementing [`Shareable`](crate::Shareable) by hand. Deriving it needs no promise.
//!
//! # How this is tested
//! `tests/compile_fail` holds a program for each misuse that the compiler must refuse, and why. The coherence oracle
//! (`tests/oracle`) has CPU threads and kernels take words from each other in the same blocks, with every value checked,
//! and must notice each of ten seeded defects.
