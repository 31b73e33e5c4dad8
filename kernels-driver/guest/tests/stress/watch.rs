//! Sees to it that nobody hangs, from the first moment to the last: agents count their steps, the main thread those of its
//! way. Who takes too long over one ends the program. What the steps are is not known here.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::raw;

/// Agents at most.
pub const MOST: usize = 32;
/// The main thread's place among them.
pub const MAIN: usize = MOST;
/// Steps of who is not there: not yet, and no longer.
const NOT_YET: u64 = 0;
const NO_LONGER: u64 = u64::MAX;

static STEPS: [AtomicU64; MOST + 1] = [const { AtomicU64::new(NOT_YET) }; MOST + 1];
static NAMES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Begins to watch, with the main thread in its first step.
pub fn start() {
    let limit = limit();
    step(MAIN);
    std::thread::spawn(move || {
        let mut seen = [(NOT_YET, Instant::now()); MOST + 1];
        loop {
            std::thread::park_timeout(Duration::from_millis(200));
            for (index, (last, since)) in seen.iter_mut().enumerate() {
                let steps = steps(index);
                if steps != *last {
                    (*last, *since) = (steps, Instant::now());
                } else if steps != NOT_YET && steps != NO_LONGER && since.elapsed() > limit {
                    println!("stress: FAILED: {} hangs in its step {steps}", name(index));
                    std::process::exit(1);
                }
            }
        }
    });
}

/// How long one step may take: far less than the runner gives the program.
fn limit() -> Duration {
    raw::factor().map_or(Duration::from_secs(60), |factor| Duration::from_secs(30) * factor)
}

/// An agent is there: it is watched from now on.
pub fn begin(index: usize, name: String) {
    let mut names = NAMES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    assert!(names.len() == index && index < MOST, "agents come in their order, and are no more than {MOST}");
    names.push(name);
    step(index);
}

/// Another step.
pub fn step(index: usize) {
    STEPS[index].fetch_add(1, Ordering::Relaxed);
}

/// How many steps it has made.
pub fn steps(index: usize) -> u64 {
    STEPS[index].load(Ordering::Relaxed)
}

/// An agent has ended.
pub fn end(index: usize) {
    STEPS[index].store(NO_LONGER, Ordering::Relaxed);
}

fn name(index: usize) -> String {
    let names = NAMES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    names.get(index).map_or_else(|| "the main thread".into(), String::clone)
}
