//! Every state that can be reached, breadth first, and whether an end can be reached from each. States are told apart
//! by 128 bits of a hash; only those not yet expanded are kept whole.

use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};

use crate::actors::System;
use crate::world::World;

/// What a search has found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) states: usize,
    pub(crate) wrong: Option<Wrong>,
}

/// Why a configuration is not as it should be, and how one gets there.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) what: String,
    pub(crate) trace: Vec<String>,
}

/// Two lanes of multiply and rotate: quick, and far more bits than states.
struct Lanes(u64, u64);

impl Hasher for Lanes {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.write_u64(u64::from_ne_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        self.1 = (self.1.rotate_left(23) ^ word).wrapping_mul(0xc2b2_ae3d_27d4_eb4f) ^ (self.1 >> 31);
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn fingerprint(world: &World) -> (u64, u64) {
    let mut lanes = Lanes(1, 2);
    world.hash(&mut lanes);
    (lanes.0 ^ lanes.1.rotate_left(32), lanes.1)
}

/// At most so many states: more is a configuration that is too large.
const STATES_MAX: usize = 3_000_000;

/// Searches until something is wrong or all is seen.
pub(crate) fn search(system: &System) -> Found {
    let start = World::new(&system.config);
    let mut seen = HashMap::from([(fingerprint(&start), 0usize)]);
    // How each state was first reached: from which, by which step of it.
    let mut parents = vec![(0usize, 0usize)];
    let mut before: Vec<(usize, usize)> = Vec::new();
    let mut ends = Vec::new();
    let mut open = VecDeque::from([(0usize, start)]);
    while let Some((from, world)) = open.pop_front() {
        let steps = system.steps(&world);
        if world.bad.is_some() || steps.is_empty() && !world.is_clean(&system.config) {
            let what = world.bad.map_or_else(|| "deadlock".into(), |bad| format!("{bad:?}"));
            return Found { states: parents.len(), wrong: Some(system.wrong(what, &parents, from)) };
        }
        if steps.is_empty() {
            ends.push(from);
        }
        for (choice, next) in steps.into_iter().enumerate() {
            let to = *seen.entry(fingerprint(&next)).or_insert_with(|| {
                parents.push((from, choice));
                open.push_back((parents.len() - 1, next));
                parents.len() - 1
            });
            before.push((to, from));
        }
        assert!(parents.len() < STATES_MAX, "{}: too many states", system.config.name);
    }
    let stuck = first_without_end(parents.len(), before, ends);
    let wrong = stuck.map(|state| system.wrong("no end can be reached".into(), &parents, state));
    Found { states: parents.len(), wrong }
}

/// The first state from which no end can be reached: there a wake-up was lost, or retries go round for ever.
fn first_without_end(states: usize, mut before: Vec<(usize, usize)>, ends: Vec<usize>) -> Option<usize> {
    before.sort_unstable();
    let mut reaches = vec![false; states];
    let mut open = ends;
    while let Some(state) = open.pop() {
        if std::mem::replace(&mut reaches[state], true) {
            continue;
        }
        let first = before.partition_point(|(to, _)| *to < state);
        open.extend(before[first..].iter().take_while(|(to, _)| *to == state).map(|(_, from)| *from));
    }
    reaches.iter().position(|reaches| !reaches)
}

impl System {
    fn wrong(&self, what: String, parents: &[(usize, usize)], at: usize) -> Wrong {
        let mut path = Vec::new();
        let mut state = at;
        while state != 0 {
            path.push(parents[state].1);
            state = parents[state].0;
        }
        let mut world = World::new(&self.config);
        let mut trace = Vec::new();
        for choice in path.into_iter().rev() {
            let next = self.steps(&world).swap_remove(choice);
            trace.push(self.tell(&world, &next));
            world = next;
        }
        trace.push(format!("{world:?}"));
        Wrong { what, trace }
    }
}
