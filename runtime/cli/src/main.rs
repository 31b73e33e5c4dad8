//! The `limosa` command: a demonstration of the runtime that verifies itself, a search for duplicates, a look at what the
//! machine allows, and a way from GLSL to kernels.
//! It uses the library as any program does, and knows nothing of its insides.
//!
//! Results go to standard output; progress and errors to standard error. Exit status 0: done; 1: an error, which is
//! named, or nothing to run on; 2: the command line is wrong.

// Launching a kernel is the one thing that no program can do without it: see `kernels`.
#![deny(unsafe_code)]

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod compile;
mod cpu_time;
mod demo;
mod device;
mod doctor;
mod error;
mod file;
mod graph;
#[allow(unsafe_code, reason = "what a kernel touches is its author's promise, given at each launch")]
mod kernels;
mod memcpy;
mod options;
mod pagerank;
mod passes;
mod progress;
mod scan;
mod table;
mod transfer;
mod units;
mod ways;

/// GPU compute with unified memory on stock Vulkan drivers.
#[derive(Parser)]
#[command(name = "limosa", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Rank a graph with the GPU following the CPU's pointers, go over a file larger than the device budget, verify
    /// both, and say what moved
    Demo(options::Demo),
    /// Find blocks that files have in common: the GPU fingerprints them, and links them in a hash table of any size
    Scan(options::Scan),
    /// Say what this machine allows, and for each thing missing the reason and the remedy
    Doctor(options::Doctor),
    /// Translate a compute shader that includes limosa.glsl to SPIR-V, and say what the kernel takes
    Compile(options::Compile),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = BufWriter::new(io::stdout());
    let outcome = match &arguments.command {
        Command::Demo(options) => demo::run(options, &mut out).map(|()| ExitCode::SUCCESS),
        Command::Scan(options) => scan::run(options, &mut out),
        Command::Doctor(options) => doctor::run(options, &mut out),
        Command::Compile(options) => compile::run(options, &mut out),
    };
    // What was found out before an error is worth reading, and stands before it.
    let flushed = out.flush().map_err(error::CliError::Output);
    match outcome.and_then(|code| flushed.map(|()| code)) {
        Ok(code) => code,
        Err(error) => {
            // If standard error is closed, the exit status is all that is left to say it with.
            let _ = writeln!(io::stderr(), "limosa: {}", error::with_causes(&error));
            ExitCode::FAILURE
        }
    }
}
