//! The checked-in bindings of the kernel module's interface are what bindgen makes of its header. It does not ask
//! whether a module was built from that header: the module's own assertions say so.
//!
//! `LIMOSA_REGENERATE=1` writes the bindings instead of comparing them. `LIMOSA_EXPECT` containing `libclang` makes a
//! missing libclang a failure.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of a test fail it by panicking")]

use std::io::Write;
use std::path::{Path, PathBuf};

use bindgen::callbacks::ParseCallbacks;

const REGENERATE: &str = "cargo xtask bindings";

const HEAD: &str = "\
//! `/dev/limosaN` as the kernel module's header has it: for the client beside it, and for tests of the module itself.
//! Made by bindgen from `kernels-driver/include/uapi/linux/limosa.h`, sizes and offsets asserted; `cargo xtask bindings`
//! makes it anew. It does *not* say what errors mean: the header does.

#![allow(missing_docs, non_camel_case_types)] // the names are C's; a struct's text explains its members

";

/// Makes Markdown of kernel-doc: what `@` marks becomes code, and each member of a struct an item of a list.
#[derive(Debug)]
struct KernelDoc;

impl ParseCallbacks for KernelDoc {
    fn process_comment(&self, comment: &str) -> Option<String> {
        let mut text = String::new();
        let mut in_list = false;
        for line in comment.lines().map(str::trim) {
            let member = line.starts_with('@') && line.contains(": ");
            in_list = member || (in_list && !line.is_empty());
            let indent = match (member, in_list) {
                (true, _) => "- ",
                (false, true) => "  ",
                (false, false) => "",
            };
            text += &format!(" {indent}{}\n", code(line)).replace(" \n", "\n");
        }
        Some(text.trim_end().to_owned())
    }
}

/// The line with each `@name` in backquotes.
fn code(line: &str) -> String {
    let mut parts = line.split('@');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(part.len());
        text += &format!("`{}`{}", &part[..end], &part[end..]);
    }
    text
}

/// A folder for what bindgen has clang evaluate.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        let path = std::env::temp_dir().join(format!("limosa-bindings-{}", std::process::id()));
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

fn generate(folder: &Path) -> String {
    let scratch = Scratch::new();
    let include = folder.join("../../kernels-driver/include/uapi");
    let bindings = bindgen::Builder::default()
        .header(include.join("linux/limosa.h").to_string_lossy())
        .clang_arg(format!("-I{}", include.display()))
        .allowlist_file(".*/linux/limosa\\.h")
        // The numbers of the ioctls are there without the steps that lead to them.
        .blocklist_item("LIMOSA_CMD_.*|_bindgen_ty_.*")
        .prepend_enum_name(false)
        // `_IO()` is a macro of macros: only clang can tell its value.
        .clang_macro_fallback()
        .clang_macro_fallback_build_dir(&scratch.0)
        .use_core()
        .derive_default(true)
        .disable_header_comment()
        .formatter(bindgen::Formatter::Rustfmt)
        .rustfmt_configuration_file(Some(folder.join("../../rustfmt.toml")))
        .parse_callbacks(Box::new(KernelDoc))
        .generate()
        .expect("the header is good C");
    format!("{HEAD}{bindings}")
}

#[test]
fn bindings_are_those_of_the_header() {
    let regenerate = std::env::var("LIMOSA_REGENERATE").is_ok_and(|value| value == "1");
    let expected = std::env::var("LIMOSA_EXPECT").is_ok_and(|value| value.contains("libclang"));
    // Without libclang, bindgen panics at the first question.
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let found = std::panic::catch_unwind(bindgen::clang_version);
    std::panic::set_hook(quiet);
    if found.is_err() {
        assert!(!expected && !regenerate, "libclang is not installed: apt-get install libclang1");
        return skip("libclang is not installed");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kept = folder.join("src/shim/uapi.rs");
    let fresh = generate(folder);
    if regenerate {
        std::fs::write(&kept, fresh).expect("the bindings can be written");
        return;
    }
    let old = std::fs::read_to_string(&kept).unwrap_or_default();
    let differs = (1..).zip(fresh.lines().zip(old.lines())).find(|(_, (fresh, old))| fresh != old);
    assert!(fresh == old, "{} is not what the header says ({differs:?}). {REGENERATE}", kept.display());
}

/// Says aloud that the test had nothing to test with.
fn skip(why: &str) {
    let line = format!("SKIP bindings: {why}\n");
    print!("{line}");
    if let Ok(path) = std::env::var("LIMOSA_SKIPS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        file.unwrap().write_all(line.as_bytes()).unwrap();
    }
}
