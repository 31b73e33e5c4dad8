//! What a scan tells: text for people, or JSON. It computes rates and shares, and nothing else.

use std::io::Write;

use limosa::Context;
use serde::Serialize;

use super::matches::{Duplicate, Place};
use super::reader::Manner;
use super::{Outcome, TableFacts};
use crate::device;
use crate::error::CliError;
use crate::options::Scan;
use crate::table::Table;
use crate::units::{bytes, count, float, gigabytes_per_second, per_second, time};

/// Names of what is left out are listed up to so many.
const NAMED: usize = 20;
/// Reasons are told up to so many: files may have their own.
const REASONS: usize = 6;

pub(super) fn write(
    context: &Context,
    options: &Scan,
    manner: Manner,
    outcome: &Outcome,
    out: &mut impl Write,
) -> Result<(), CliError> {
    if options.json {
        serde_json::to_writer_pretty(&mut *out, &json(context, manner, outcome))?;
        writeln!(out)?;
        return Ok(());
    }
    write_found(options, outcome, out)?;
    writeln!(out, "\n{}", run_table(context, manner, outcome))?;
    write_left_out(outcome, out)?;
    if cfg!(debug_assertions) {
        writeln!(out, "This is a debug build, which checks itself: its times and rates say nothing.")?;
    }
    Ok(())
}

fn write_found(options: &Scan, outcome: &Outcome, out: &mut impl Write) -> Result<(), CliError> {
    let Outcome { walk, reading, matches, .. } = outcome;
    let files = walk.files.len() - reading.troubles.len();
    let (files, blocks) = (count(files as u64), count(matches.blocks));
    writeln!(out, "{} in {files} files, {blocks} blocks of up to {}", bytes(matches.bytes), bytes(options.block))?;
    let mut table = Table::of_numbers("\nDuplicates", ["blocks", "bytes", "of all"]);
    let share = |part: u64| format!("{:.2} %", percent(part, matches.bytes));
    let (duplicate, different) = (matches.duplicate_bytes, matches.bytes - matches.duplicate_bytes);
    table.row("elsewhere before", [count(matches.duplicate_blocks), bytes(duplicate), share(duplicate)]);
    let blocks = count(matches.blocks - matches.duplicate_blocks);
    table.row("different", [blocks, bytes(different), share(different)]);
    writeln!(out, "{table}")?;
    writeln!(out, "{}", says(outcome.verified))?;
    if matches.largest.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nThe largest duplicates")?;
    for Duplicate { bytes: length, at, of, repeats } in &matches.largest {
        let again = if *repeats { ", again and again" } else { "" };
        writeln!(out, "  {:>9}  {}", bytes(*length), name(outcome, at.0))?;
        writeln!(out, "             is in {}{again}", name(outcome, *of))?;
    }
    Ok(())
}

/// What a duplicate is.
fn says(verified: Option<u64>) -> String {
    match verified {
        Some(duplicates) => format!(
            "Verified: the CPU, which read the files anew, has the same fingerprints and duplicates; {} of these are\n\
             equal byte for byte to what they are duplicates of.",
            count(duplicates)
        ),
        None => {
            "Of the same length and the same fingerprint: 128 bits, which differ for different blocks unless somebody\n\
             made these to deceive (it is no cryptography). --verify compares byte for byte."
                .to_owned()
        }
    }
}

fn run_table(context: &Context, manner: Manner, outcome: &Outcome) -> Table {
    let Outcome { reading, table: facts, ran, .. } = outcome;
    let mut table = Table::of_text("The run");
    let all = reading.ways.bytes();
    let rate = gigabytes_per_second(all, reading.time);
    table.row("read and fingerprinted", [format!("{} in {}: {rate:.2} GB/s", bytes(all), time(reading.time))]);
    if all > 0 {
        table.row("tier", [reading.ways.shares()]);
    }
    for reason in reading.ways.reasons.iter().take(REASONS) {
        table.row(&format!("why not {}", reason.tier), [reason.reason.clone()]);
    }
    if let Some(why) = &reading.ways.displaced {
        table.row("on the host", [why.clone()]);
    }
    let (window, depth) = (bytes(manner.cut.window), manner.depth);
    table.row("windows", [format!("of {window}, {depth} at a time")]);
    let cpu = reading.cpu_time;
    let each = cpu.as_secs_f64() * 1e3 * float(1 << 30);
    let each = if all > 0 { each / float(all) } else { 0.0 };
    let software = if is_software(context) { ", the software device's own work included" } else { "" };
    table.row("CPU time of that", [format!("{}: {each:.0} ms per GiB{software}", time(cpu))]);
    table.row("hash table", [table_row(facts)]);
    table.row("budget", [format!("{} of device memory", bytes(context.heap().device_budget()))]);
    let moved = |blocks: u64| bytes(blocks * limosa::BLOCK);
    let (up, down, evicted) = (moved(ran.blocks_to_device), moved(ran.blocks_to_host), moved(ran.blocks_evicted));
    table.row("moved", [format!("{up} to the device, {down} back, {evicted} evicted")]);
    table.row("in all", [format!("{}, {} of the CPU", time(outcome.time), time(outcome.cpu_time))]);
    table.row("device", [device::describe(context.adapter())]);
    table.row("class", [format!("{:?}, through {}", context.device_class(), context.view())]);
    table
}

fn table_row(facts: &TableFacts) -> String {
    let TableFacts { bytes: size, records, parts, launches, time: elapsed } = facts;
    let parts = if *parts == 1 { "in one part".to_owned() } else { format!("in {parts} parts") };
    let all = bytes(size + records);
    format!("{all} with its records, filled {parts} by {launches} launches in {}", time(*elapsed))
}

fn write_left_out(outcome: &Outcome, out: &mut impl Write) -> Result<(), CliError> {
    for (reason, number) in &outcome.walk.left_out {
        writeln!(out, "left out  {} {}", count(*number), reason.words())?;
    }
    let unread = &outcome.walk.unread;
    for one in unread.iter().take(NAMED) {
        writeln!(out, "not read  {}: {}", printable(&one.path), one.reason)?;
    }
    if unread.len() > NAMED {
        writeln!(out, "not read  {} more; --json names all", count((unread.len() - NAMED) as u64))?;
    }
    Ok(())
}

fn is_software(context: &Context) -> bool {
    context.adapter().kind == limosa::DeviceKind::Cpu
}

fn percent(part: u64, all: u64) -> f64 {
    if all > 0 { 100.0 * float(part) / float(all) } else { 0.0 }
}

fn name(outcome: &Outcome, place: Place) -> String {
    format!("{} at {}", printable(&outcome.walk.files[place.file].path), place.offset)
}

/// A path on one line, whatever its characters.
fn printable(path: &std::path::Path) -> String {
    let text = path.to_string_lossy();
    text.chars().flat_map(|char| if char.is_control() { char.escape_default().collect() } else { vec![char] }).collect()
}

/// The outcome as JSON. Bytes and seconds.
#[derive(Serialize)]
struct Json<'a> {
    block: u64,
    files: usize,
    bytes: u64,
    blocks: u64,
    duplicate_bytes: u64,
    duplicate_blocks: u64,
    /// Different blocks of which there are duplicates.
    repeated_blocks: u64,
    largest: Vec<JsonDuplicate<'a>>,
    /// Of the verification, if it was asked for.
    verified_duplicates: Option<u64>,
    read_seconds: f64,
    read_bytes_per_second: f64,
    read_cpu_seconds: f64,
    tiers: Vec<JsonTier>,
    bounced_bytes: u64,
    requests: u64,
    reasons: Vec<JsonReason<'a>>,
    seconds: f64,
    cpu_seconds: f64,
    window: u64,
    depth: usize,
    device: &'a str,
    device_budget: u64,
    table_bytes: u64,
    table_parts: usize,
    table_seconds: f64,
    blocks_to_device: u64,
    blocks_to_host: u64,
    left_out: Vec<JsonLeftOut>,
    not_read: Vec<JsonUnread<'a>>,
}

/// Names are as text: what is none is replaced.
#[derive(Serialize)]
struct JsonDuplicate<'a> {
    bytes: u64,
    file: std::borrow::Cow<'a, str>,
    offset: u64,
    of_file: std::borrow::Cow<'a, str>,
    of_offset: u64,
    repeats: bool,
}

#[derive(Serialize)]
struct JsonTier {
    tier: String,
    bytes: u64,
}

#[derive(Serialize)]
struct JsonReason<'a> {
    tier: String,
    reason: &'a str,
}

#[derive(Serialize)]
struct JsonLeftOut {
    what: &'static str,
    count: u64,
}

#[derive(Serialize)]
struct JsonUnread<'a> {
    file: std::borrow::Cow<'a, str>,
    reason: &'a str,
}

fn json<'a>(context: &'a Context, manner: Manner, outcome: &'a Outcome) -> Json<'a> {
    let Outcome { walk, reading, matches, table, ran, .. } = outcome;
    let path = |file: usize| walk.files[file].path.to_string_lossy();
    let duplicate = |one: &Duplicate| JsonDuplicate {
        bytes: one.bytes,
        file: path(one.at.0.file),
        offset: one.at.0.offset,
        of_file: path(one.of.file),
        of_offset: one.of.offset,
        repeats: one.repeats,
    };
    Json {
        block: manner.cut.block,
        files: walk.files.len() - reading.troubles.len(),
        bytes: matches.bytes,
        blocks: matches.blocks,
        duplicate_bytes: matches.duplicate_bytes,
        duplicate_blocks: matches.duplicate_blocks,
        repeated_blocks: matches.repeated,
        largest: matches.largest.iter().map(duplicate).collect(),
        verified_duplicates: outcome.verified,
        read_seconds: reading.time.as_secs_f64(),
        read_bytes_per_second: per_second(reading.ways.bytes(), reading.time),
        read_cpu_seconds: reading.cpu_time.as_secs_f64(),
        tiers: reading
            .ways
            .tiers
            .iter()
            .map(|(tier, bytes)| JsonTier { tier: tier.to_string(), bytes: *bytes })
            .collect(),
        bounced_bytes: reading.ways.bounced,
        requests: reading.ways.requests,
        reasons: reading
            .ways
            .reasons
            .iter()
            .map(|one| JsonReason { tier: one.tier.to_string(), reason: &one.reason })
            .collect(),
        seconds: outcome.time.as_secs_f64(),
        cpu_seconds: outcome.cpu_time.as_secs_f64(),
        window: manner.cut.window,
        depth: manner.depth,
        device: &context.adapter().name,
        device_budget: context.heap().device_budget(),
        table_bytes: table.bytes,
        table_parts: table.parts,
        table_seconds: table.time.as_secs_f64(),
        blocks_to_device: ran.blocks_to_device,
        blocks_to_host: ran.blocks_to_host,
        left_out: walk.left_out.iter().map(|(what, count)| JsonLeftOut { what: what.words(), count: *count }).collect(),
        not_read: walk
            .unread
            .iter()
            .map(|one| JsonUnread { file: one.path.to_string_lossy(), reason: &one.reason })
            .collect(),
    }
}
