//! What a kernel's module says of it, and what limosa does where a launch says something else: arguments,
//! specialization constants, grids.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

#[path = "common/mod.rs"]
mod common;
#[path = "bad_input/glsl.rs"]
mod glsl;

use limosa::{ArgumentType, Context, Error, GpuError, GpuPtr, Kernel, Launch, PagerError, Queue, Scalar, Shareable};
use limosa_shaders::{ALL, copy, triad};

use common::failure::{BLOCK_WORDS, Kit, Watchdog};
use common::{builder, context};
use glsl::{compile, compile_with};

/// The error of a launch that is not to happen.
fn refused(launch: Launch<'_>) -> (GpuError, String) {
    // SAFETY: it is refused before anything runs.
    let error = unsafe { launch.submit() }.map(|_| ()).unwrap_err();
    let text = error.to_string();
    (gpu(error), text)
}

fn gpu(error: Error) -> GpuError {
    match error {
        Error::Pager(PagerError::Gpu(error)) => error,
        other => panic!("{other}"),
    }
}

/// Where nothing is ever written.
const NULL: GpuPtr<u32> = GpuPtr::null();

#[test]
fn kernels_tell_their_arguments() {
    let Some(context) = context("arguments told", builder()) else { return };
    for kernel in ALL {
        let made = context.kernel(kernel.name, kernel.spirv).unwrap();
        let end = made.arguments().last().map_or(0, |last| (last.offset + last.bytes) as usize);
        assert_eq!(end, made.argument_bytes(), "{}", kernel.name);
        assert!(made.arguments().iter().all(|argument| argument.name.is_some()), "{}", kernel.name);
    }
    let triad = context.kernel("triad", triad::KERNEL.spirv).unwrap();
    let names: Vec<_> = triad.arguments().iter().filter_map(|argument| argument.name.as_deref()).collect();
    assert_eq!(names, ["a", "b", "c", "count", "scale"]);
    assert_eq!(triad.arguments()[4].kind, ArgumentType::Scalar(Scalar::F32));
    assert_eq!(triad.constants(), []);
}

#[test]
fn mistyped_swapped_missing_and_surplus_arguments_are_named() {
    let Some(kit) = Kit::new("mistyped", builder()) else { return };
    let triad = kit.context.kernel("triad", triad::KERNEL.spirv).unwrap();
    let before = kit.heap().counters().launches;
    let fill = || kit.queue.launch(&kit.fill, 1).arg(NULL);
    let pointers = || kit.queue.launch(&triad, 1).args((NULL, NULL, NULL));
    let cases = [
        (fill().arg(1.5f32), "fill: argument 2 (count) is a u64 in the module, but an f32 was given"),
        (fill().arg(1.5f64), "fill: argument 2 (count) is a u64 in the module, but an f64 was given"),
        (fill().arg(1u32), "fill: argument 2 (count) is a u64 in the module, but a u32 was given"),
        (fill().args((7u32, 1u64)), "fill: argument 2 (count) is a u64 in the module, but a u32 was given"),
        (fill().args((1u64, 2u64)), "fill: argument 3 (value) is a u32 in the module, but a u64 was given"),
        (fill().args((1u64, [2u16; 2])), "fill: argument 3 (value) is a u32 in the module, but a [u16; 2] was given"),
        (fill().args((1u64, [2u32; 2])), "fill: argument 3 (value) is a u32 in the module, but a [u32; 2] was given"),
        (pointers().args((1.0f32, 4u64)), "triad: argument 4 (count) is a u64 in the module, but an f32 was given"),
        (pointers().args((4u64, 1u32)), "triad: argument 5 (scale) is an f32 in the module, but a u32 was given"),
        (pointers().args((4u64, NULL)), "triad: argument 5 (scale) is an f32 in the module, but a pointer was given"),
    ];
    for (launch, says) in cases {
        let (error, text) = refused(launch);
        assert_eq!(text, says);
        assert!(matches!(error, GpuError::ArgumentMismatch { .. }), "{error:?}");
    }
    let (error, text) = refused(fill());
    assert!(matches!(error, GpuError::ArgumentsMissing { given: 8, needed: 20, .. }), "{error:?}");
    assert!(text.starts_with("fill: argument 2 (count), a u64, is missing"), "{text}");
    let (_, text) = refused(fill().arg(1u64));
    assert!(text.starts_with("fill: argument 3 (value), a u32, is missing"), "{text}");
    let (_, text) = refused(kit.queue.launch(&kit.fill, 1));
    assert!(text.starts_with("fill: argument 1 (dst), a u64, is missing"), "{text}");
    let whole = || kit.queue.launch(&kit.copy, 1).args((NULL, NULL, 0u64));
    let (error, text) = refused(whole().arg(1u32));
    assert!(matches!(error, GpuError::ArgumentsSurplus { position: 4, declared: 3, .. }), "{error:?}");
    assert_eq!(text, "copy: argument 4, a u32, is one too many: the module declares 3");
    let (_, text) = refused(fill().args((1u64, 1u32, 0u32, 1u8)));
    assert_eq!(text, "fill: argument 5, a u8, is one too many: the module declares 3");
    // The first error is told, not what follows from it.
    let (_, text) = refused(fill().args((1.0f32, 1u64, [0u64; 99])));
    assert!(text.contains("argument 2 (count)"), "{text}");
    assert_eq!(kit.heap().counters().launches, before);
    kit.works();
}

/// fill's arguments as a structure of one's own.
#[derive(Clone, Copy)]
#[repr(C)]
struct Args {
    dst: GpuPtr<u32>,
    count: u64,
    value: u32,
    reserved: u32,
}

// SAFETY: numbers, `repr(C)`, no padding.
unsafe impl Shareable for Args {}

/// A part of them that ends within `count`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Torn {
    dst: [u32; 2],
    half: u32,
}

// SAFETY: as above.
unsafe impl Shareable for Torn {}

#[test]
fn structures_and_arrays_may_cover_several() {
    let Some(kit) = Kit::new("structures", builder()) else { return };
    let mut vec = kit.heap().vec_zeroed::<u32>(BLOCK_WORDS).unwrap();
    let args = Args { dst: vec.ptr(0), count: BLOCK_WORDS as u64, value: 7, reserved: 0 };
    let Args { dst, count, value, reserved: _ } = args;
    let begun = || kit.queue.launch(&kit.fill, 64);
    let cases: [(&str, Launch<'_>); 4] = [
        ("a structure", begun().arg(args)),
        ("an array and a signed number", begun().args(([dst.address(), count], value.cast_signed()))),
        ("one by one, signed", begun().args((dst, count.cast_signed(), value))),
        ("by name", begun().named("dst", dst).named("count", count).named("value", value)),
    ];
    for (what, launch) in cases {
        // SAFETY: fill writes `vec`, which no guard is held of.
        unsafe { launch.with_whole_heap().submit() }.unwrap().wait().unwrap();
        assert!(vec.read().unwrap().iter().all(|word| *word == 7), "{what}");
        vec.write().unwrap().fill(0);
    }
    let (_, text) = refused(begun().arg(Torn { dst: [0; 2], half: 0 }));
    assert_eq!(text, "fill: argument 1 (count) is a u64 in the module, but a struct of 12 bytes was given");
    let (_, text) = refused(begun().arg([args; 2]));
    assert_eq!(text, "fill: argument 1 (value) is a u32 in the module, but a struct of 48 bytes was given");
    let (_, text) = refused(begun().arg([0u64; 0]));
    assert_eq!(text, "fill: argument 1 (dst) is a u64 in the module, but a [u64; 0] was given");
}

#[test]
fn names_are_checked_where_they_are_given() {
    let Some(kit) = Kit::new("names", builder()) else { return };
    let (error, text) = refused(kit.queue.launch(&kit.fill, 1).arg(NULL).named("size", 1u64).arg(1u32));
    assert_eq!(text, "fill: argument 2 is named `count` in the module, but was given as `size`");
    assert!(matches!(error, GpuError::ArgumentName { position: 2, .. }), "{error:?}");
    let launch = kit.queue.launch(&kit.fill, 1).args((NULL, 1u64, 1u32));
    let (_, text) = refused(launch.named("spare", 0u32));
    assert_eq!(text, "fill: argument 4, a u32 named spare, is one too many: the module declares 3");
    let body = "#include \"limosa.glsl\"\nlayout(local_size_x = 64) in;\nLIMOSA_ARGUMENTS(uint64_t count;)\n\
                void main() { if (args.count > 9ul) return; }";
    let Some(spirv) = compile_with("stripped", "comp", body, &["-g0"]) else { return };
    let kernel = kit.context.kernel("stripped", &spirv).unwrap();
    assert_eq!(kernel.arguments()[0].name, None);
    let (_, text) = refused(kit.queue.launch(&kernel, 1).named("count", 1u64));
    assert!(text.contains("stripped: argument 1 has no name in the module") && text.contains("`count`"), "{text}");
    let (_, text) = refused(kit.queue.launch(&kernel, 1).arg(1f64));
    assert_eq!(text, "stripped: argument 1 is a u64 in the module, but an f64 was given");
    // SAFETY: the kernel touches no memory.
    unsafe { kit.queue.launch(&kernel, 1).arg(1u64).submit() }.unwrap().wait().unwrap();
    kit.works();
}

#[test]
fn vectors_arrays_and_structures_are_reflected() {
    let Some(context) = context("reflected", builder()) else { return };
    let body = "#include \"limosa.glsl\"\nlayout(local_size_x = 64) in;\nstruct Pair { uint a; float b; };\n\
                LIMOSA_ARGUMENTS(vec3 at; uint8_t tag; ivec2 cells[2]; Pair pair; double weight; LimosaU32 words;)\n\
                void main() { if (args.tag > 9) return; }";
    let Some(spirv) = compile("shapes", "comp", body) else { return };
    let kernel = context.kernel("shapes", &spirv).unwrap();
    let told = kernel.arguments().iter().map(|one| {
        let name = one.name.as_deref().unwrap();
        format!("{name}: {} at {} of {}", one.kind, one.offset, one.bytes)
    });
    let wanted = [
        "at: f32x3 at 0 of 12",
        "tag: u8 at 12 of 1",
        "cells: [i32x2; 2] at 16 of 16",
        "pair: struct of 8 bytes at 32 of 8",
        "weight: f64 at 40 of 8",
        "words: pointer at 48 of 8",
    ];
    assert_eq!(told.collect::<Vec<_>>(), wanted);
    let queue = context.queue().unwrap();
    let launch = || queue.launch(&kernel, 1).args(([1f32; 3], 2u8, [[3i32; 2]; 2]));
    // SAFETY: the kernel touches no memory.
    unsafe { launch().args(([4u32; 2], 5f64, NULL)).submit() }.unwrap().wait().unwrap();
    let (_, text) = refused(queue.launch(&kernel, 1).arg([1f32; 4]));
    assert_eq!(text, "shapes: argument 1 (tag) is a u8 in the module, but a [f32; 4] was given");
    let (_, text) = refused(launch().args(([4u32; 2], 5u64)));
    assert_eq!(text, "shapes: argument 5 (weight) is an f64 in the module, but a u64 was given");
}

/// A kernel that writes its specialization constants to `out`.
const CONSTANTS: &str = "#include \"limosa.glsl\"
layout(local_size_x_id = 1) in;
layout(constant_id = 1) const uint WIDTH = 32u;
layout(constant_id = 2) const int SHIFT = -2;
layout(constant_id = 3) const float SCALE = 0.5;
layout(constant_id = 4) const bool ON = true;
layout(constant_id = 9) const uint64_t WIDE = 0x100000002ul;
LIMOSA_ARGUMENTS(uint64_t out_;)
void main() {
    if (limosa_index() != 0ul) return;
    limosa_u64(args.out_, 0ul).value = WIDTH;
    limosa_u64(args.out_, 1ul).value = uint64_t(int64_t(SHIFT));
    limosa_u64(args.out_, 2ul).value = floatBitsToUint(SCALE);
    limosa_u64(args.out_, 3ul).value = ON ? 1ul : 0ul;
    limosa_u64(args.out_, 4ul).value = WIDE;
}";

fn constants_of(context: &Context, queue: &Queue, kernel: &Kernel) -> [u64; 5] {
    let mut out = context.heap().vec_zeroed::<u64>(5).unwrap();
    // SAFETY: the kernel writes five words of `out`.
    unsafe { queue.launch(kernel, 1).arg(out.writes()).submit() }.unwrap().wait().unwrap();
    let words = out.read().unwrap();
    std::array::from_fn(|i| words[i])
}

#[test]
fn specialization_constants_reach_the_kernel() {
    let Some(context) = context("constants", builder()) else { return };
    let _watchdog = Watchdog::new("constants");
    let Some(spirv) = compile("constants", "comp", CONSTANTS) else { return };
    let queue = context.queue().unwrap();
    let plain = context.kernel("plain", &spirv).unwrap();
    let told: Vec<_> = plain.constants().iter().map(|one| format!("{one}: {}", one.default)).collect();
    let wanted = ["1 (WIDTH): 32", "2 (SHIFT): -2", "3 (SCALE): 0.5", "4 (ON): true", "9 (WIDE): 4294967298"];
    assert_eq!(told, wanted);
    assert_eq!(plain.workgroup(), [1, 1, 1], "the default of `local_size_x_id` is 1");
    let half = u64::from(0.5f32.to_bits());
    assert_eq!(constants_of(&context, &queue, &plain), [32, (-2i64).cast_unsigned(), half, 1, 0x1_0000_0002]);
    let begun = || context.kernel_builder("special", &spirv).entry("main").constant(1, 64u32);
    let special = begun().constant(4, false).constant(9, u64::MAX - 1).constant(2, 5i32).constant(3, -3.0f32);
    // Set again, the last counts; the sign makes no difference.
    let special = special.constant(2, 9u32).build().unwrap();
    assert_eq!(special.workgroup(), [64, 1, 1], "a workgroup may be made of them");
    let minus = u64::from((-3f32).to_bits());
    assert_eq!(constants_of(&context, &queue, &special), [64, 9, minus, 0, u64::MAX - 1]);
    let error = begun().constant(1, u32::MAX).build().map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("workgroups of 4294967295"), "{error}");
}

#[test]
fn wrong_specialization_constants_are_named() {
    let Some(context) = context("wrong constants", builder()) else { return };
    let refused = |spirv: &[u8], id: u32, value: limosa::SpecValue| {
        context.kernel_builder("k", spirv).constant(id, value).build().map(|_| ()).unwrap_err()
    };
    let text = refused(copy::KERNEL.spirv, 0, 1u32.into()).to_string();
    assert!(text.starts_with("k: specialization constant 0 is limosa's own (LIMOSA_TRANSLATION"), "{text}");
    let text = refused(copy::KERNEL.spirv, 3, 1u32.into()).to_string();
    assert_eq!(text, "k: no specialization constant 3; the module has: none");
    let Some(spirv) = compile("wrong", "comp", CONSTANTS) else { return };
    let names = "1 (WIDTH), 2 (SHIFT), 3 (SCALE), 4 (ON), 9 (WIDE)";
    let text = refused(&spirv, 5, 1u32.into()).to_string();
    assert_eq!(text, format!("k: no specialization constant 5; the module has: {names}"));
    let cases = [
        (1, 1u64.into(), "1 (WIDTH) is a u32 in the module, but a u64 was given"),
        (1, 1f32.into(), "1 (WIDTH) is a u32 in the module, but an f32 was given"),
        (2, true.into(), "2 (SHIFT) is an i32 in the module, but a bool was given"),
        (3, 1i32.into(), "3 (SCALE) is an f32 in the module, but an i32 was given"),
        (4, 1u32.into(), "4 (ON) is a bool in the module, but a u32 was given"),
        (9, 1u32.into(), "9 (WIDE) is a u64 in the module, but a u32 was given"),
    ];
    for (id, value, says) in cases {
        let error = refused(&spirv, id, value);
        assert_eq!(error.to_string(), format!("k: specialization constant {says}"));
        assert!(matches!(gpu(error), GpuError::ConstantMismatch { .. }));
    }
}

#[test]
fn grids_of_three_dimensions_round_up_and_have_limits() {
    let Some(context) = context("grids", builder()) else { return };
    let _watchdog = Watchdog::new("grids");
    let body = "#include \"limosa.glsl\"\nlayout(local_size_x = 8, local_size_y = 4, local_size_z = 2) in;\n\
                LIMOSA_ARGUMENTS(uint64_t seen;)\n\
                void main() {\n\
                    uvec3 size = gl_NumWorkGroups * gl_WorkGroupSize, at = gl_GlobalInvocationID;\n\
                    limosa_u32(args.seen, at.x + size.x * (at.y + size.y * at.z)).value = 1u;\n\
                }";
    let Some(spirv) = compile("grid", "comp", body) else { return };
    let (kernel, queue) = (context.kernel("grid", &spirv).unwrap(), context.queue().unwrap());
    for (invocations, covered) in
        [([17, 5, 3], 24 * 8 * 4), ([8, 4, 2], 64), ([1, 1, 1], 64), ([9, 1, 1], 128), ([0, 9, 9], 0)]
    {
        let mut seen = context.heap().vec_zeroed::<u32>(4096).unwrap();
        // SAFETY: the kernel writes a word for each invocation, fewer than there are.
        unsafe { queue.launch_nd(&kernel, invocations).arg(seen.writes()).submit() }.unwrap().wait().unwrap();
        let seen = seen.read().unwrap();
        assert!(seen.iter().enumerate().all(|(i, word)| u32::from(i < covered) == *word), "{invocations:?}");
    }
    let limit = context.adapter().limits.workgroups;
    for dimension in 0..3 {
        for groups in [u64::from(limit[dimension]) + 1, 1 << 40, u64::MAX / 8] {
            let mut invocations = [1; 3];
            invocations[dimension] = groups.saturating_mul([8, 4, 2][dimension]);
            let (error, text) = refused(queue.launch_nd(&kernel, invocations).arg(NULL));
            let GpuError::GridTooLarge { groups: told, limit: most, .. } = error else { panic!("{text}") };
            assert_eq!((u64::from(told[dimension]), most), (groups.min(u32::MAX.into()), limit), "{text}");
            assert!(text.contains("grid") && text.contains("launch in parts"), "{text}");
        }
    }
}
