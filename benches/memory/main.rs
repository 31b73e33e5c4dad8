//! What limosa's memory costs beside what this machine can do at best: `cargo bench --bench memory [-- FILTER]
//! [--quick]`.
//!
//! Every benchmark states its question and unit, measures its ceiling or peer in the same rounds (whose order
//! rotates), and prints both with their ratio. Bounds are those of the issue that asked for the figure. A ratio on the
//! wrong side of its bound is told, and fails nothing: machines differ, and share their cores with others.
//!
//! Traps that it avoids (they cost factors, not percents): memory is touched before it is timed; working sets exceed
//! the last-level cache; what should be on one side only is checked to be; the counters say how many faults and moves
//! a figure stands for.
#![allow(clippy::cast_precision_loss, reason = "counts become figures with three digits")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot set up has nothing to report but why")]

mod budget;
mod buffer;
mod ceiling;
mod faults;
mod heap_size;
mod launch;
mod machine;
mod prefetch;
mod raw;
mod report;
mod resident;
mod rounds;
mod scale;
mod sweep;
mod triad;

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
        name: "budget",
        question: "What does data beyond the device budget cost: making room, cyclic passes, the step at the edge?",
        run: budget::run,
    },
    Bench { name: "launch", question: "What does an empty launch cost, submit to end of wait?", run: launch::run },
    Bench {
        name: "heap-size",
        question: "Does a fault cost more in a heap of 10^6 blocks than in one of 10^3?",
        run: heap_size::run,
    },
];

fn main() {
    // Cargo adds `--bench`; there is no other option to know.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let filter = arguments.iter().find(|argument| !argument.starts_with("--"));
    let scale = if quick { Scale::QUICK } else { Scale::FULL };
    let context = match limosa::Context::new() {
        Ok(context) => context,
        Err(error) => {
            println!("SKIP memory: needs a device with a heap: {error}");
            return;
        }
    };
    let machine = machine::line(&context);
    drop(context);
    println!("{machine}\n");

    let mut rows = Vec::new();
    for bench in BENCHES.iter().filter(|bench| filter.is_none_or(|filter| bench.name.contains(filter.as_str()))) {
        println!("{}: {}", bench.name, bench.question);
        let start = std::time::Instant::now();
        let measured = (bench.run)(&scale);
        measured.iter().for_each(Row::print);
        println!("  [{:.0} s]\n", start.elapsed().as_secs_f64());
        rows.extend(measured);
    }
    report::table(&rows);
    println!("\n{machine}");
    if quick {
        println!("--quick: working sets fit the cache and rounds are few; no figure to quote.");
    }
}
