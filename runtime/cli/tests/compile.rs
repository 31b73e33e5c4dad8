//! `limosa compile`, and with it the guide's first page as a newcomer follows it. Skips aloud without glslang or a
//! device.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do; clippy knows only test functions")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{has_device, limosa, skip, text};

const GUIDE: &str = include_str!("../../src/guide/first_program.md");

/// The guide's block of this language.
fn block(language: &str) -> &'static str {
    let (_, rest) = GUIDE.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0
}

fn folder(test: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test);
    std::fs::create_dir_all(folder.join("src")).unwrap();
    folder
}

fn has_glslang(test: &str) -> bool {
    let found = Command::new("glslangValidator").arg("--version").output();
    if let Err(error) = &found {
        skip(test, "glslang", &error.to_string());
    }
    found.is_ok()
}

fn compile(folder: &Path, arguments: &[&str]) -> Output {
    limosa(&[&["compile"], arguments].concat()).current_dir(folder).output().unwrap()
}

#[test]
fn the_guides_first_page_runs_as_it_is() {
    let test = "the_guides_first_page_runs_as_it_is";
    if !has_glslang(test) || !has_device(test) {
        return;
    }
    let folder = folder("first_program");
    std::fs::write(folder.join("scale.comp"), block("glsl")).unwrap();
    let output = compile(&folder, &["scale.comp", "-o", "src/scale.spv"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    for argument in ["argument 1: values: u64", "argument 2: count: u64", "argument 3: factor: f32"] {
        assert!(told.contains(argument), "{told}");
    }

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let manifest = format!(
        "[package]\nname = \"first\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n\
         limosa = {{ path = '{}' }}\n",
        root.to_str().unwrap()
    );
    std::fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    std::fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    std::fs::write(folder.join("src/main.rs"), block("rust,ignore")).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--quiet", "--offline"]).current_dir(&folder);
    cargo.env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages"));
    let output = cargo.output().unwrap();
    assert_eq!(text(&output.stdout), "values[7] = 3.5\n", "{}", text(&output.stderr));
}

#[test]
fn a_shader_that_is_wrong_is_named_with_its_line() {
    let test = "a_shader_that_is_wrong_is_named_with_its_line";
    if !has_glslang(test) {
        return;
    }
    let folder = folder("wrong_shader");
    std::fs::write(folder.join("wrong.comp"), block("glsl").replace("limosa_f32", "limosa_f31")).unwrap();
    let output = compile(&folder, &["wrong.comp"]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("wrong.comp:12") && told.contains("limosa_f31"), "{told}");
    assert!(!folder.join("wrong.spv").exists());
    assert_eq!(compile(&folder, &["missing.comp"]).status.code(), Some(1));
}

#[test]
fn a_compiler_that_is_not_there_is_named_with_its_package() {
    let folder = folder("no_compiler");
    std::fs::write(folder.join("scale.comp"), block("glsl")).unwrap();
    let output = limosa(&["compile", "scale.comp"]).current_dir(&folder).env("PATH", "").output().unwrap();
    let told = text(&output.stderr);
    assert!(output.status.code() == Some(1) && told.contains("apt install glslang-tools"), "{told}");
}
