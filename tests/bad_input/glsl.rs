//! Kernels made from GLSL by the tests themselves.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // helpers of tests are tests

use std::path::PathBuf;
use std::process::Command;

use limosa_shaders::LIMOSA_GLSL;

use crate::common::failure::told;
use crate::common::skip;

/// Translates GLSL, or `None` where there is no glslangValidator.
pub fn compile(name: &str, stage: &str, body: &str) -> Option<Vec<u8>> {
    compile_with(name, stage, body, &[])
}

/// The same with more flags for the compiler.
pub fn compile_with(name: &str, stage: &str, body: &str, flags: &[&str]) -> Option<Vec<u8>> {
    let folder: PathBuf = std::env::temp_dir().join(format!("limosa-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("limosa.glsl"), LIMOSA_GLSL).unwrap();
    let source = folder.join(format!("kernel.{stage}"));
    let head = "#version 460\n#extension GL_GOOGLE_include_directive : require\n";
    let types = "#extension GL_EXT_shader_explicit_arithmetic_types : require\n\
                 #extension GL_EXT_scalar_block_layout : require\n";
    std::fs::write(&source, format!("{head}{types}{body}\n")).unwrap();
    let target = folder.join("kernel.spv");
    let mut command = Command::new("glslangValidator");
    command.args(["-V", "--target-env", "vulkan1.3"]).args(flags).arg("-o").arg(&target).arg(&source);
    let run = command.output();
    let spirv = match run {
        Ok(output) => {
            assert!(output.status.success(), "{name}: {}", told(&output));
            Some(std::fs::read(&target).unwrap())
        }
        Err(error) => {
            skip(name, "glslang", &error.to_string());
            None
        }
    };
    std::fs::remove_dir_all(&folder).unwrap();
    spirv
}
