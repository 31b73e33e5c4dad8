//! `limosa compile`: a compute shader in GLSL to SPIR-V, with limosa.glsl at hand, and what the kernel takes. The
//! translating is glslang's.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use limosa::{Context, Kernel};
use limosa_shaders::LIMOSA_GLSL;

use crate::error::CliError;
use crate::options::Compile;

const COMPILER: &str = "glslangValidator";

/// Why there is no module.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompileError {
    /// glslang is not installed.
    #[error("{COMPILER} is not there; on Debian: apt install glslang-tools")]
    NoCompiler,
    /// A file or a process.
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    /// The source is wrong.
    #[error("{source_file} is not translated:\n{told}")]
    Refused { source_file: String, told: String },
}

fn io_error(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> CompileError {
    move |source| CompileError::Io { what: what.to_string(), source }
}

/// A folder with limosa.glsl in it, gone with this.
struct Includes(PathBuf);

impl Includes {
    fn new() -> Result<Self, CompileError> {
        let folder = std::env::temp_dir().join(format!("limosa-compile-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(io_error(folder.display()))?;
        let (includes, file) = (Self(folder.clone()), folder.join("limosa.glsl"));
        std::fs::write(&file, LIMOSA_GLSL).map_err(io_error(file.display()))?;
        Ok(includes)
    }
}

impl Drop for Includes {
    fn drop(&mut self) {
        // It is the system's temporary folder: what stays there goes with it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn translate(source: &Path, target: &Path) -> Result<(), CompileError> {
    let includes = Includes::new()?;
    let mut compiler = Command::new(COMPILER);
    compiler.args(["--quiet", "-V", "--target-env", "vulkan1.3", "-S", "comp"]);
    // A limosa.glsl beside the source comes first: that is where glslang looks for what is in quotes.
    compiler.arg(format!("-I{}", includes.0.display())).arg("-o").arg(target).arg(source);
    let output = match compiler.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(CompileError::NoCompiler),
        output => output.map_err(io_error(COMPILER))?,
    };
    if output.status.success() {
        return Ok(());
    }
    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()).join("\n");
    Err(CompileError::Refused { source_file: source.display().to_string(), told: told.trim().to_owned() })
}

/// The kernel as limosa sees it.
fn describe(kernel: &Kernel, out: &mut dyn Write) -> io::Result<()> {
    let [x, y, z] = kernel.workgroup();
    writeln!(out, "workgroup: {x} × {y} × {z} invocations")?;
    if kernel.arguments().is_empty() {
        writeln!(out, "it takes no arguments")?;
    }
    for (position, argument) in (1..).zip(kernel.arguments()) {
        let name = argument.name.as_deref().unwrap_or("(without a name)");
        writeln!(out, "argument {position}: {name}: {}", argument.kind)?;
    }
    for constant in kernel.constants() {
        writeln!(out, "constant {}: {}", constant.id, constant.name.as_deref().unwrap_or("(without a name)"))?;
    }
    Ok(())
}

pub(crate) fn run(options: &Compile, out: &mut dyn Write) -> Result<ExitCode, CliError> {
    let target = options.output.clone().unwrap_or_else(|| options.source.with_extension("spv"));
    translate(&options.source, &target)?;
    writeln!(out, "{}", target.display())?;
    let spirv = std::fs::read(&target).map_err(io_error(target.display()))?;
    let name = options.source.file_stem().unwrap_or_default().to_string_lossy();
    match Context::builder().heap_size(1 << 30).build() {
        Ok(context) => {
            describe(&context.kernel(&name, &spirv).map_err(CliError::during("looking at the kernel"))?, out)?
        }
        Err(error) => writeln!(out, "not tried on a device: {error}")?,
    }
    Ok(ExitCode::SUCCESS)
}
