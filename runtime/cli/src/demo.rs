//! `limosa demo`: opens a context, has the graph ranked, then a file larger than the device budget gone over, and
//! prints what came of each with a closing table. It computes nothing itself.

use std::io::Write;

use limosa::{Context, Counters, DeviceClass, ResidencySummary, TierReason};

use crate::device;
use crate::error::CliError;
use crate::file::Source;
use crate::graph::{self, Graph};
use crate::memcpy::{self, Ceiling};
use crate::options::Demo;
use crate::pagerank::{self, Ranking, TOUCHES_AFTER};
use crate::passes::{self, Outcome};
use crate::progress::Spinner;
use crate::table::Table;
use crate::transfer::{self, Move, ROUNDS};
use crate::units::{bytes, count, float, gigabytes_per_second, per_second, rough, time};

/// Runs the demonstration.
pub(crate) fn run(options: &Demo, out: &mut impl Write) -> Result<(), CliError> {
    let graph = load(options)?;
    let file = match options.file_limit {
        0 => None,
        limit => Some(Source::choose(options.file.as_deref(), limit)?),
    };
    let ceiling = rank(options, &graph, out)?;
    match &file {
        Some(source) => go_over(options, source, ceiling, out)?,
        None => writeln!(out, "The file: left out, --file-limit is 0")?,
    }
    if cfg!(debug_assertions) {
        writeln!(out, "This is a debug build, which checks itself: its times and rates say nothing.")?;
    }
    Ok(())
}

/// The first part. Answers the ceiling that it measured.
fn rank(options: &Demo, graph: &Graph, out: &mut impl Write) -> Result<Ceiling, CliError> {
    let context = options.opening.open()?;
    writeln!(out, "device  {}", device::describe(context.adapter()))?;
    let (class, view) = (format!("{:?}", context.device_class()), context.view());
    let means = match context.device_class() {
        DeviceClass::Faulting => "a kernel's accesses move pages by faults",
        DeviceClass::Declared => "what launches declare is moved before they run",
    };
    writeln!(out, "class   {class}, through {view}; its self-test passed: {means}")?;
    writeln!(out, "graph   {}", graph.source)?;
    let (nodes, edges) = (count(graph.node_count as u64), count(graph.edges.len() as u64));
    writeln!(out, "        {nodes} nodes, {edges} edges, linked by the CPU's pointers in one heap")?;
    out.flush()?;

    let ranking = pagerank::rank(&context, graph, &options.settings())?;
    print_ranks(out, &ranking)?;
    out.flush()?;
    let ceiling = memcpy::measure();
    // The graph is gone from the heap by now: the budget is the array's.
    let array = transfer::fitting(&context, options.transfer);
    let moves = if array > 0 { transfer::measure(&context, array)? } else { Vec::new() };

    writeln!(out, "\n{}", run_table(&context, options, graph, &ranking, ceiling))?;
    writeln!(out, "{}", side_table(&ranking.ran))?;
    writeln!(out, "{}", residency_table(&ranking.residency))?;
    if moves.is_empty() {
        let why = if options.transfer == 0 { "--transfer is 0" } else { "the budget has no room for an array" };
        writeln!(out, "Moves of a larger array: left out, {why}\n")?;
    } else {
        writeln!(out, "{}", move_table(&moves, array, ceiling))?;
    }
    out.flush()?;
    Ok(ceiling)
}

/// The second part, in a context of its own.
fn go_over(options: &Demo, source: &Source, ceiling: Ceiling, out: &mut impl Write) -> Result<(), CliError> {
    writeln!(out, "file    {} ({})", source.name(), source.chosen)?;
    let all = if source.len < source.size { " are read: the start, see --file-limit" } else { ", all of it" };
    let (len, size) = (bytes(source.len), bytes(source.size));
    writeln!(out, "        {len} of {size}{all}; the device budget is {}", bytes(passes::budget(source.len)))?;
    out.flush()?;
    let context = options.opening.open_with(Some(passes::budget(source.len)))?;
    let done = passes::run_over(&context, source)?;
    let (byte, frequency) = done.frequent;
    let share = 100.0 * float(frequency) / float(done.len);
    let (blocks, distinct) = (count(done.blocks as u64), count(done.distinct as u64));
    writeln!(
        out,
        "Fingerprints of {blocks} blocks of 64 KiB, {distinct} of them different; the most frequent byte is"
    )?;
    writeln!(
        out,
        "{byte:#04x} ({share:.1} % of all). Verified: each fingerprint and count equals the CPU twin's, which"
    )?;
    writeln!(out, "read the file anew.")?;
    writeln!(out, "\n{}", file_table(&done, passes::budget(source.len), ceiling))?;
    Ok(())
}

fn load(options: &Demo) -> Result<Graph, CliError> {
    let _progress = Spinner::start("reading the graph");
    Ok(match &options.graph {
        Some(path) => graph::read_snap(path)?,
        None => graph::bundled()?,
    })
}

fn print_ranks(out: &mut impl Write, ranking: &Ranking) -> Result<(), CliError> {
    writeln!(
        out,
        "\nBetween iterations the CPU followed pointers to nodes, read their ranks (below) and raised them in place"
    )?;
    for after in TOUCHES_AFTER {
        let touches = ranking.touches.iter().filter(|touch| touch.after == after);
        let touches: Vec<String> = touches.map(|touch| format!("{} ({:.2e})", touch.label, touch.rank)).collect();
        writeln!(out, "  after iteration {after}: {}", touches.join(", "))?;
    }
    let equal = match ranking.difference {
        0.0 => "bit for bit".to_owned(),
        difference => format!("within {difference:.1e} of each rank"),
    };
    writeln!(out, "Verified: all ranks, read in place, equal the CPU twin's {equal}.")?;
    writeln!(out, "\nThe highest ranks")?;
    for (place, (rank, label)) in (1..).zip(&ranking.top) {
        writeln!(out, "  {place:>2}. {rank:.6}  {label}")?;
    }
    Ok(())
}

fn run_table(context: &Context, options: &Demo, graph: &Graph, ranking: &Ranking, ceiling: Ceiling) -> Table {
    let heap = context.heap();
    let mut table = Table::of_text("The run");
    let Ranking { iterations, ran, .. } = ranking;
    table.row("build", [format!("{} for {} of structs", time(ranking.build_time), bytes(ranking.bytes))]);
    let each = ranking.device_time.checked_div(*iterations).unwrap_or_default();
    let (all, each) = (time(ranking.device_time), time(each));
    table.row("iterations", [format!("{iterations} in {all}, {each} each, to residual {:.1e}", ranking.residual)]);
    let followed = graph.edges.len() as u64 * u64::from(*iterations);
    let rate = |elapsed| rough(per_second(followed, elapsed));
    let (gpu, cpu) = (rate(ranking.device_time), rate(ranking.twin_time));
    table.row("edges/s", [format!("{gpu} on the device, faults included (the CPU twin, one thread: {cpu})")]);
    let moved = (ran.blocks_to_device + ran.blocks_to_host) * limosa::BLOCK;
    let rate = gigabytes_per_second(moved, ranking.device_time);
    table.row("moved", [format!("{} while ranking: {rate:.3} GB/s of that time", bytes(moved))]);
    let Ceiling { rate, bytes: size, copies } = ceiling;
    table.row("memcpy", [format!("{rate:.2} GB/s, the ceiling (median of {copies} copies of {})", bytes(size))]);
    table.row("device", [context.adapter().name.clone()]);
    table.row("budget", [format!("{} of device memory", bytes(heap.device_budget()))]);
    table.row("host engine", [device::host_engine(heap, options.opening.fault_mode.into())]);
    table.row("pages", [device::pages(heap.backing())]);
    table
}

fn side_table(ran: &Counters) -> Table {
    let mut table =
        Table::of_numbers("Faults and moves from the first iteration to the last rank read", ["CPU", "GPU"]);
    table.row("read faults", [count(ran.cpu_read_faults), count(ran.gpu_read_faults)]);
    table.row("write faults", [count(ran.cpu_write_faults), count(ran.gpu_write_faults)]);
    table.row("64 KiB blocks moved to it", [count(ran.blocks_to_host), count(ran.blocks_to_device)]);
    table
}

fn residency_table(residency: &[[ResidencySummary; 2]; 2]) -> Table {
    let heads = ["host only", "device only", "both", "untouched"];
    let mut table = Table::of_numbers("Where the structs are (the heap's own answer)", heads);
    let names = [["nodes, ranked", "edges, ranked"], ["nodes, ranks read", "edges, ranks read"]];
    for (names, residency) in names.iter().zip(residency) {
        for (name, is) in names.iter().zip(residency) {
            table.row(name, [is.host, is.device, is.both, is.zero].map(bytes));
        }
    }
    table
}

fn move_table(moves: &[Move], array: u64, ceiling: Ceiling) -> Table {
    let title = format!("Moves of an array of {} (median of {ROUNDS}; by faults: a touch of each page)", bytes(array));
    let mut table = Table::of_numbers(title, ["time", "GB/s", "of memcpy", "CPU faults", "GPU faults"]);
    for Move { name, time: elapsed, counted } in moves {
        let rate = gigabytes_per_second(array, *elapsed);
        let ratio = if ceiling.rate > 0.0 { rate / ceiling.rate } else { 0.0 };
        let cpu = counted.cpu_read_faults + counted.cpu_write_faults;
        let gpu = counted.gpu_read_faults + counted.gpu_write_faults;
        table.row(name, [time(*elapsed), format!("{rate:.2}"), format!("{ratio:.2}"), count(cpu), count(gpu)]);
    }
    table
}

fn file_table(done: &Outcome, budget: u64, ceiling: Ceiling) -> Table {
    let Outcome { len, window, ran, .. } = done;
    let mut table = Table::of_text("The file");
    let rate = |bytes, elapsed| format!("{:.2} GB/s", gigabytes_per_second(bytes, elapsed));
    let read = rate(*len, done.read_time);
    table.row("read", [format!("{} into unified memory: {read}", time(done.read_time))]);
    table.row("tier", [done.ways.shares()]);
    for TierReason { tier, reason } in &done.ways.reasons {
        table.row(&format!("why not {tier}"), [reason.clone()]);
    }
    let (launches, passes) = (done.launches, passes::PASSES.len());
    table
        .row("launches", [format!("{launches}, all queued ahead: {passes} passes over windows of {}", bytes(*window))]);
    let seen = len * passes as u64;
    let ratio = |rate: f64| if ceiling.rate > 0.0 { rate / ceiling.rate } else { 0.0 };
    let of_memcpy = ratio(gigabytes_per_second(seen, done.device_time));
    let memcpy = format!("{of_memcpy:.2} of memcpy's {:.2} GB/s", ceiling.rate);
    table.row("passes", [format!("{}: {}, {memcpy}", time(done.device_time), rate(seen, done.device_time))]);
    let twin = format!("{}: {}, one thread", time(done.twin_time), rate(seen, done.twin_time));
    table.row("the CPU twins", [twin]);
    let evicted = format!("{} blocks of 64 KiB out of a budget of {}", count(ran.blocks_evicted), bytes(budget));
    table.row("evictions", [evicted]);
    let (up, down) = (ran.blocks_to_device * limosa::BLOCK, ran.blocks_to_host * limosa::BLOCK);
    let moved = rate(up + down, done.device_time);
    table.row("moved", [format!("{} to the device, {} back: {moved} of that time", bytes(up), bytes(down))]);
    let least = done.least_loads * limosa::BLOCK;
    let over = if least > 0 { float(up + down) / float(least) } else { 1.0 };
    table.row("the least", [format!("{} (Belady, offline): {over:.3} of it moved", bytes(least))]);
    let faults = ran.gpu_read_faults + ran.gpu_write_faults;
    table.row("GPU faults", [format!("{}: what launches declare comes before they run", count(faults))]);
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn moves_are_beside_the_ceiling() {
        let counted = Counters { cpu_read_faults: 3, cpu_write_faults: 1, ..Counters::default() };
        let moves = [Move { name: "down", time: Duration::from_millis(100), counted }];
        let ceiling = Ceiling { rate: 10.0, bytes: 1, copies: 1 };
        let text = move_table(&moves, 500_000_000, ceiling).to_string();
        let line = text.lines().last().unwrap_or_default();
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(cells, ["down", "100.0", "ms", "5.00", "0.50", "4", "0"]);
    }

    #[test]
    fn each_side_has_its_column() {
        let ran = Counters { gpu_read_faults: 1200, blocks_to_host: 7, ..Counters::default() };
        let text = side_table(&ran).to_string();
        let lines: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["CPU", "GPU"]);
        assert_eq!(lines[1], ["read", "faults", "0", "1,200"]);
        assert_eq!(lines[3][6..], ["7", "0"]);
    }
}
