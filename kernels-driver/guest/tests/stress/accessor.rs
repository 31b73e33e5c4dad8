//! CPU and GPU at their work: they read slots that nobody holds, write one at a time, and count. They are told nothing of
//! what owners and disturbers do to the memory meanwhile.

use crate::agent::{Agent, Op};
use crate::arena::COUNTERS;

/// Mostly by the CPU's own addresses.
pub fn cpu(mut agent: Agent) {
    let mut seen = vec![0; COUNTERS];
    while agent.goes_on() {
        let by_device = agent.random.once_in(8);
        access(&mut agent, &mut seen, by_device);
    }
}

/// Through the views.
pub fn gpu(mut agent: Agent) {
    let mut seen = vec![0; COUNTERS];
    while agent.goes_on() {
        access(&mut agent, &mut seen, true);
    }
}

fn access(agent: &mut Agent, seen: &mut [u64], by_device: bool) {
    let (shared, mark) = (std::sync::Arc::clone(&agent.shared), agent.mark(Op::Write));
    let arena = &shared.arena;
    let path = if by_device { 1 + agent.random.below(arena.paths.len() - 1) } else { 0 };
    let path = arena.paths.get(path).unwrap_or(&arena.paths[0]);
    let (first, end) = arena.slots();
    let slot = first + agent.random.below(end - first);
    match agent.random.below(8) {
        0 => {
            // Few counters that all use much, or any.
            let few = agent.random.once_in(2);
            let counter = agent.random.below(if few { 8 } else { COUNTERS });
            let before = arena.count(counter, path);
            if before < seen[counter] {
                arena.fail(&format!(
                    "counter {counter} by {}: expected {} or more, found {before}",
                    path.name, seen[counter]
                ));
            }
            seen[counter] = before + 1;
            agent.note(Op::Count, true);
        }
        1..4 => {
            let Some(mut held) = arena.hold(slot, 1, mark) else { return agent.note(Op::Write, false) };
            arena.check(&held, path);
            arena.write(&mut held, path);
            arena.release(held);
            agent.note(Op::Write, true);
        }
        _ => {
            // Neighbours, as a kernel would.
            for slot in (slot..end).take(1 + agent.random.below(32)) {
                let looked = arena.look(slot, path);
                agent.note(Op::Look, looked);
            }
        }
    }
}
