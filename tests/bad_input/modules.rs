//! SPIR-V that is none, that is cut or garbled, or that limosa cannot launch.

#[path = "glsl.rs"]
mod glsl;

use limosa::{Context, Error, GpuError, PagerError};
use limosa_shaders::{ALL, fill, reduce};

use crate::common::failure::{Kit, Watchdog, child, is_child, no_core, told};
use crate::common::{builder, context};
use glsl::compile;

const OP_TYPE_STRUCT: u32 = 30;
const OP_CONSTANT: u32 = 43;
const OP_EXECUTION_MODE_ID: u32 = 331;
/// Words of a module before its first instruction.
const HEADER: usize = 5;

fn gpu(error: Error) -> GpuError {
    match error {
        Error::Pager(PagerError::Gpu(error)) => error,
        other => panic!("{other}"),
    }
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Where each instruction begins, with its opcode and its length.
fn instructions(words: &[u32]) -> Vec<(usize, u32, usize)> {
    let (mut at, mut all) = (HEADER, Vec::new());
    while at < words.len() {
        let length = usize::try_from(words[at] >> 16).unwrap();
        all.push((at, words[at] & 0xFFFF, length));
        at += length;
    }
    all
}

fn refused(context: &Context, what: &str, spirv: &[u8]) {
    let error = context.kernel(what, spirv).map(|_| ()).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(what), "it names the kernel: {text}");
    match error {
        Error::NotWords { bytes, .. } => assert!(bytes == spirv.len() && text.contains("multiple of 4"), "{text}"),
        Error::Pager(PagerError::Gpu(GpuError::InvalidSpirv { .. })) => assert!(text.contains("SPIR-V"), "{text}"),
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn what_is_no_module_is_refused() {
    let Some(context) = context("no module", builder()) else { return };
    for len in [0, 1, 2, 3, 5, 19] {
        refused(&context, "bytes", &vec![3; len]);
    }
    let magic = 0x0723_0203u32;
    for words in
        [vec![0], vec![u32::MAX; 64], vec![magic], vec![magic; 5], vec![magic, 0x1_0600, 0, 1, 0], vec![0; 999]]
    {
        refused(&context, "words", &bytes(&words));
    }
    refused(&context, "text", b"#version 460\nvoid main() {}\n    ");
    let mut swapped = fill::KERNEL.words();
    swapped.iter_mut().for_each(|word| *word = word.swap_bytes());
    // The other byte order is legal SPIR-V, though not for Vulkan: an error or a kernel, but no crash.
    let _ = context.kernel_with_entry("swapped", &bytes(&swapped), "no such entry");
    Kit::of(context).works();
}

#[test]
fn a_module_cut_anywhere_is_refused() {
    const TEST: &str = "modules::a_module_cut_anywhere_is_refused";
    let _watchdog = Watchdog::new(TEST);
    if is_child("cut") {
        no_core();
        let Some(context) = context(TEST, builder()) else { return };
        for kernel in ALL {
            let whole = kernel.words();
            for len in 0..whole.len() {
                eprintln!("{} cut to {len} of {} words", kernel.name, whole.len());
                refused(&context, kernel.name, &bytes(&whole[..len]));
            }
            for spare in 1..4 {
                refused(&context, kernel.name, &kernel.spirv[..kernel.spirv.len() - spare]);
            }
        }
        return Kit::of(context).works();
    }
    let output = child(TEST, "cut", |_| ());
    let text = told(&output);
    let from = text.len().saturating_sub(800);
    assert!(output.status.success(), "{}", text.get(from..).unwrap_or(&text));
}

#[test]
fn garbled_headers_and_lengths_are_refused() {
    let Some(context) = context("garbled", builder()) else { return };
    let _watchdog = Watchdog::new("garbled headers");
    let whole = fill::KERNEL.words();
    for bit in 0..32 {
        let mut words = whole.clone();
        words[0] ^= 1 << bit;
        refused(&context, "magic", &bytes(&words));
    }
    for (at, opcode, _) in instructions(&whole) {
        for length in [0, 0xFFFF] {
            let mut words = whole.clone();
            words[at] = opcode | length << 16;
            refused(&context, "length", &bytes(&words));
        }
    }
    // Every single bit: the parser only, since drivers crash on modules that are well-formed but not valid.
    let wanted = "no such entry";
    for word in 0..whole.len() {
        for bit in (0..32).step_by(3) {
            let mut words = whole.clone();
            words[word] ^= 1 << bit;
            let error = gpu(context.kernel_with_entry("flipped", &bytes(&words), wanted).map(|_| ()).unwrap_err());
            assert!(matches!(error, GpuError::InvalidSpirv { .. } | GpuError::NoEntryPoint { .. }), "{error}");
        }
    }
    Kit::of(context).works();
}

#[test]
fn a_missing_entry_point_is_named_beside_those_that_are() {
    let Some(context) = context("entry point", builder()) else { return };
    for wanted in ["Main", "", "main2", "ma\0in"] {
        let error = context.kernel_with_entry("fill", fill::KERNEL.spirv, wanted).map(|_| ()).unwrap_err();
        let text = error.to_string();
        let GpuError::NoEntryPoint { name, wanted: told, available } = gpu(error) else { panic!("{text}") };
        assert_eq!((name.as_str(), told.as_str(), &available[..]), ("fill", wanted, &["main".to_owned()][..]));
        assert!(text.contains("fill") && text.contains("main"), "{text}");
    }
    Kit::of(context).works();
}

#[test]
fn hostile_types_and_sizes_are_refused() {
    const TEST: &str = "modules::hostile_types_and_sizes_are_refused";
    let _watchdog = Watchdog::new(TEST);
    if is_child("hostile") {
        no_core();
        let Some(context) = context(TEST, builder()) else { return };
        let refused = |what: &str, words: &[u32]| {
            eprintln!("{what}");
            let error = gpu(context.kernel(what, &bytes(words)).map(|_| ()).unwrap_err());
            assert!(matches!(error, GpuError::InvalidSpirv { .. } | GpuError::Interface { .. }), "{what}: {error:?}");
        };
        let whole = fill::KERNEL.words();
        let all = instructions(&whole);
        // The argument block is the only structure with several members; its last becomes itself.
        let (at, _, length) = *all.iter().find(|(_, op, length)| *op == OP_TYPE_STRUCT && *length > 4).unwrap();
        let mut words = whole.clone();
        words[at + length - 1] = words[at + 1];
        refused("a structure that holds itself", &words);

        let (mode, ..) = *all.iter().find(|(_, op, _)| *op == OP_EXECUTION_MODE_ID).unwrap();
        let sizes = &whole[mode + 3..mode + 6];
        for (what, size) in [("a workgroup beyond the device", 60_000), ("a workgroup beyond 64 bits", u32::MAX)] {
            let mut words = whole.clone();
            for (at, ..) in all.iter().filter(|(at, op, _)| *op == OP_CONSTANT && sizes.contains(&whole[at + 2])) {
                words[at + 3] = size;
            }
            refused(what, &words);
        }
        return Kit::of(context).works();
    }
    let output = child(TEST, "hostile", |_| ());
    assert!(output.status.success(), "{}", told(&output));
}

#[test]
fn kernels_that_limosa_cannot_call_say_why() {
    let Some(context) = context("interfaces", builder()) else { return };
    let _watchdog = Watchdog::new("interfaces");
    let group = "layout(local_size_x = 64) in;";
    let push = "layout(push_constant, scalar) uniform";
    let cases = [
        (
            "no-view",
            format!("{group} {push} A {{ uint n; }} a; void main() {{ if (a.n > 1u) return; }}"),
            "limosa_view",
        ),
        ("float-view", format!("{group} {push} A {{ float v; uint n; }} a; void main() {{}}"), "limosa_view"),
        ("big", format!("{group} {push} A {{ uint64_t limosa_view; uint x[64]; }} a; void main() {{}}"), "264"),
        ("vast", format!("{group} {push} A {{ uint64_t v; uint x[0x40000000]; }} a; void main() {{}}"), "vast"),
    ];
    for (name, body, says) in cases {
        // glslang keeps an unused block.
        let Some(spirv) = compile(name, "comp", &body) else { return };
        let error = context.kernel(name, &spirv).map(|_| ()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(name) && text.contains(says), "{name}: {text}");
        match gpu(error) {
            GpuError::Interface { .. } => {}
            GpuError::ArgumentsTooLarge { taker, .. } => {
                assert!(taker == "the device" && text.contains("pass a pointer"), "{text}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    let Some(spirv) = compile("vertex", "vert", "void main() { gl_Position = vec4(0); }") else { return };
    let error = context.kernel("vertex", &spirv).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
    assert!(matches!(gpu(error), GpuError::NoEntryPoint { available, .. } if available.is_empty()));
    let Some(spirv) = compile("bare", "comp", &format!("{group} void main() {{}}")) else { return };
    let bare = context.kernel("bare", &spirv).unwrap();
    assert_eq!((bare.argument_bytes(), bare.workgroup()), (0, [64, 1, 1]));
    let queue = context.queue().unwrap();
    // SAFETY: the kernel does nothing.
    unsafe { queue.launch(&bare, 1000).submit() }.unwrap().wait().unwrap();
    Kit::of(context).works();
}

#[test]
fn arguments_and_grids_are_checked_before_anything_runs() {
    let Some(kit) = Kit::new("arguments", builder()) else { return };
    let before = kit.heap().counters().launches;
    let vec = kit.heap().vec_zeroed::<u32>(64).unwrap();
    let launch = || kit.queue.launch(&kit.reduce, 64).args((vec.reads(), vec.reads(), 0u64));
    // SAFETY: reduce is to touch nothing; it is not even launched.
    let error = gpu(unsafe { launch().arg([0u64; 40]).submit() }.map(|_| ()).unwrap_err());
    let GpuError::ArgumentsSurplus { name, position: 4, declared: 3, .. } = &error else { panic!("{error}") };
    assert!(name == reduce::KERNEL.name && error.to_string().contains("reduce"), "{error}");
    // SAFETY: as above.
    let error = gpu(unsafe { kit.queue.launch(&kit.reduce, 64).arg(vec.reads()).submit() }.map(|_| ()).unwrap_err());
    let GpuError::ArgumentsMissing { given, needed, .. } = &error else { panic!("{error}") };
    assert!(given < needed && error.to_string().contains(&needed.to_string()), "{error}");
    // SAFETY: as above.
    let error = gpu(unsafe { kit.queue.launch(&kit.reduce, 64).submit() }.map(|_| ()).unwrap_err());
    assert!(matches!(error, GpuError::ArgumentsMissing { .. }), "{error}");
    let [x, y, z] = kit.context.adapter().limits.workgroups;
    for groups in [[u32::MAX, 1, 1], [1, u32::MAX, 1], [1, 1, u32::MAX], [u32::MAX; 3]] {
        let launch = kit.queue.launch_groups(&kit.reduce, groups).args((vec.reads(), vec.reads(), 0u64));
        // SAFETY: as above.
        let error = gpu(unsafe { launch.submit() }.map(|_| ()).unwrap_err());
        let GpuError::GridTooLarge { groups: told, limit, .. } = &error else { panic!("{error}") };
        assert_eq!((*told, *limit), (groups, [x, y, z]));
        assert!(error.to_string().contains("launch in parts"), "{error}");
    }
    for invocations in [u64::MAX, 1 << 50] {
        let launch = kit.queue.launch(&kit.reduce, invocations).args((vec.reads(), vec.reads(), 0u64));
        // SAFETY: as above.
        let error = gpu(unsafe { launch.submit() }.map(|_| ()).unwrap_err());
        assert!(matches!(error, GpuError::GridTooLarge { .. }), "{error}");
    }
    assert_eq!(kit.heap().counters().launches, before);
    kit.works();
}
