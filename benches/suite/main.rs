//! What limosa costs beside what this machine can do at best, and beside its peers: `cargo xtask bench`, or without the
//! peer wgpu `cargo bench -p limosa-benches`. benches/README.md tells the promises and how to read what comes out.
//!
//! Every benchmark states its question and unit, measures its ceiling or peer in the same rounds (whose order
//! rotates), and prints both with their ratio. Bounds are those of the issue that asked for the figure. A ratio on the
//! wrong side of its bound is told, and fails nothing: machines differ, and share their cores with others.
//!
//! Traps that it avoids (they cost factors, not percents): memory is touched before it is timed; working sets exceed
//! the last-level cache; what should be on one side only is checked to be; results are verified; the counters say how
//! many faults and moves a figure stands for.
#![allow(clippy::cast_precision_loss, reason = "counts become figures with three digits")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot set up has nothing to report but why")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

mod budget;
mod buffer;
mod ceiling;
mod faults;
mod files;
mod graphs;
mod grid;
mod heap_size;
mod json;
mod launch;
mod machine;
mod opencl;
mod options;
mod pager;
mod pocl;
mod prefetch;
mod raw;
mod report;
mod resident;
mod rounds;
mod scale;
mod stream;
mod sweep;
mod transfer;
mod triad;
mod webgpu;

use machine::Machine;
use options::{Options, USAGE};
use report::Row;
use scale::Scale;

struct Bench {
    name: &'static str,
    question: &'static str,
    run: fn(&Scale) -> Vec<Row>,
}

const BENCHES: &[Bench] = &[
    Bench { name: "memcpy", question: "How fast does one thread copy cold memory?", run: ceiling::run },
    Bench {
        name: "prefetch",
        question: "How near does a prefetch come to a memcpy of the same bytes, and may the CPU then read freely?",
        run: prefetch::run,
    },
    Bench {
        name: "transfer",
        question: "How near do upload and download of large data come to memcpy?",
        run: transfer::run,
    },
    Bench {
        name: "sweep",
        question: "How fast does the CPU read through data that is on the device, faults and moves included?",
        run: sweep::run,
    },
    Bench {
        name: "faults",
        question: "What does one random touch of a 64 KiB block on the device cost, with nothing else moved?",
        run: faults::run,
    },
    Bench {
        name: "triad",
        question: "Does a kernel on resident data run as fast as on the fastest raw Vulkan buffer?",
        run: triad::run,
    },
    Bench {
        name: "stream",
        question: "What bandwidth have BabelStream's kernels, by where their arrays are?",
        run: stream::run,
    },
    Bench { name: "pocl", question: "How fast is the same in OpenCL's shared virtual memory?", run: pocl::run },
    Bench {
        name: "budget",
        question: "What does data beyond the device budget cost: making room, cyclic passes, the step at the edge?",
        run: budget::run,
    },
    Bench {
        name: "grid",
        question: "What does a working set beyond device memory cost, by its size and how it is gone through?",
        run: grid::run,
    },
    Bench {
        name: "graphs",
        question: "How fast are searches and ranks of a graph, in device memory and in half of what it takes?",
        run: graphs::run,
    },
    Bench {
        name: "files",
        question: "How fast do files come to device memory and go back, by each way, beside fio on the same file?",
        run: files::run,
    },
    Bench {
        name: "launch",
        question: "What does an empty launch cost beside raw Vulkan, wgpu and the pager's own calls, one by one and batched?",
        run: launch::run,
    },
    Bench {
        name: "heap-size",
        question: "Does a fault cost more in a heap of 10^6 blocks than in one of 10^3?",
        run: heap_size::run,
    },
];

/// What came of a bench.
struct Measured {
    bench: &'static Bench,
    seconds: f64,
    rows: Vec<Row>,
}

impl Bench {
    /// Runs it. One that panics loses its own rows, not those of hours before; gives whether it did not.
    fn measure(&'static self, scale: &Scale) -> (Measured, bool) {
        println!("{}: {}", self.name, self.question);
        let start = Instant::now();
        let rows = catch_unwind(AssertUnwindSafe(|| (self.run)(scale)));
        let whole = rows.is_ok();
        let rows = rows.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            vec![Row::left_out(self.name, format!("it panicked: {}", text.unwrap_or("see above")))]
        });
        let seconds = start.elapsed().as_secs_f64();
        rows.iter().for_each(Row::print);
        println!("  [{seconds:.0} s]\n");
        (Measured { bench: self, seconds, rows }, whole)
    }
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(what) => {
            eprintln!("{what}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if options.help {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    if options.list {
        BENCHES.iter().for_each(|bench| println!("{}: {}", bench.name, bench.question));
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&'static Bench> = BENCHES.iter().filter(|bench| options.wants(bench.name)).collect();
    if wanted.is_empty() {
        eprintln!("no bench is called like {}; --list names them", options.filters.join(" or "));
        return ExitCode::from(2);
    }
    match run(&options, &wanted) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot write {}: {error}", options.json.unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}

/// Gives whether all that was wanted could be run.
fn run(options: &Options, wanted: &[&'static Bench]) -> std::io::Result<bool> {
    let target = options.json.as_deref().map(json::Target::open).transpose()?;
    let context = match limosa::Context::new() {
        Ok(context) => context,
        Err(error) => {
            println!("SKIP benches: needs a device with a heap: {error}");
            return Ok(false);
        }
    };
    let machine = Machine::probe(&context);
    drop(context);
    println!("{}\n", machine.line());

    let (measured, whole): (Vec<Measured>, Vec<bool>) =
        wanted.iter().map(|bench| bench.measure(&options.scale)).unzip();
    report::table(measured.iter().flat_map(|measured| &measured.rows));
    println!("\n{}", machine.line());
    if options.scale.name != Scale::FULL.name {
        println!("--{}: working sets fit the cache and rounds are few; no figure to quote.", options.scale.name);
    }
    if let Some(target) = target {
        target.write(&json::document(&machine, &options.scale, &measured))?;
    }
    Ok(whole.into_iter().all(|whole| whole))
}
