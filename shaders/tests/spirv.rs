//! The checked-in SPIR-V is what glslang makes of the checked-in GLSL, and valid. It does not run kernels.
//!
//! `LIMOSA_REGENERATE=1` writes the modules instead of comparing them. `LIMOSA_EXPECT` containing `glslang`
//! makes a missing glslangValidator a failure.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test fail it by panicking")]

use limosa_shaders::ALL;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const COMPILER: &str = "glslangValidator";
const REGENERATE: &str = "LIMOSA_REGENERATE=1 cargo test -p limosa-shaders --test spirv";

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// None where the tool is not installed.
fn run(tool: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(tool).args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => panic!("{tool} does not start: {error}"),
    }
}

fn succeeds(what: &str, output: &Output) {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&said));
}

fn names(subfolder: &str, extension: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder().join(subfolder)).expect("the folder is readable");
    let paths = entries.map(|entry| entry.expect("the entry is readable").path());
    paths
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect()
}

/// Compiles a shader to `module`; false where there is no compiler.
fn compile(name: &str, module: &Path) -> bool {
    let source = folder().join("glsl").join(name).with_extension("comp");
    let (source, module) = (source.to_str().unwrap(), module.to_str().unwrap());
    let arguments = ["-V", "--target-env", "vulkan1.3", "-o", module, source];
    let output = run(COMPILER, &arguments);
    output.as_ref().inspect(|output| succeeds(source, output)).is_some()
}

/// Word 2 of the header names the compiler's version: it may differ.
fn without_generator(mut module: Vec<u8>) -> Vec<u8> {
    if let Some(generator) = module.get_mut(8..12) {
        generator.fill(0);
    }
    module
}

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        let path = std::env::temp_dir().join(format!("limosa-spirv-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder can be made");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's cleaning of its temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_source_has_its_module_and_kernel() {
    let kernels: BTreeSet<String> = ALL.iter().map(|kernel| kernel.name.to_owned()).collect();
    assert_eq!(names("glsl", "comp"), kernels, "sources and ALL differ");
    assert_eq!(names("spirv", "spv"), kernels, "modules and ALL differ");
}

#[test]
fn modules_are_those_of_the_sources() {
    let regenerate = std::env::var("LIMOSA_REGENERATE").is_ok_and(|value| value == "1");
    let expected = std::env::var("LIMOSA_EXPECT").is_ok_and(|value| value.contains("glslang"));
    if run(COMPILER, &["--version"]).is_none() {
        assert!(!expected && !regenerate, "{COMPILER} is not installed: apt-get install glslang-tools");
        println!("SKIP spirv: {COMPILER} is not installed");
        return;
    }
    let scratch = Scratch::new();
    for name in names("glsl", "comp") {
        let fresh = scratch.0.join(&name).with_extension("spv");
        let kept = folder().join("spirv").join(&name).with_extension("spv");
        assert!(compile(&name, &fresh), "{COMPILER} went away");
        let module = std::fs::read(&fresh).expect("the compiler wrote its module");
        if regenerate {
            // Renamed into place: another test of this process reads the modules meanwhile.
            let new = kept.with_extension("new");
            std::fs::write(&new, module).expect("the module can be written");
            std::fs::rename(&new, &kept).expect("the module can be replaced");
        } else {
            let old = std::fs::read(&kept).unwrap_or_default();
            let same = without_generator(old) == without_generator(module);
            assert!(same, "{} is not what {name}.comp compiles to. Regenerate: {REGENERATE}", kept.display());
        }
    }
}

#[test]
fn modules_are_valid() {
    for name in names("spirv", "spv") {
        let module = folder().join("spirv").join(&name).with_extension("spv");
        let arguments = ["--target-env", "vulkan1.3", "--scalar-block-layout", module.to_str().unwrap()];
        match run("spirv-val", &arguments) {
            Some(output) => succeeds(&name, &output),
            None => return println!("SKIP spirv: spirv-val is not installed"),
        }
    }
}
