//! The small systems that are searched, chosen so that every waiting relation of the pager occurs in one.

use limosa_model::{
    Access::{self, Read, Write},
    Side::{Device, Host},
};

use crate::world::{
    At, Config, Doer, Kernel,
    Op::{Await, Complete, Discard, Notified, Pin, Prefetch, Submit, Take, Touch, Unpin},
};

const A: At = (0, 0);
const B: At = (0, 1);
const C: At = (1, 0);
const D: At = (2, 0);

/// A launch on the first queue that touches what it declares.
const fn declared(set: &'static [(At, Access)]) -> Kernel {
    Kernel { doer: Doer::Device, queue: 0, unordered: false, after: &[], set, touches: set }
}

/// What a queue has the host do: a thread takes it up.
const TASK: Kernel = Kernel { doer: Doer::Host, ..declared(&[]) };
/// An event that a thread of the application's ends.
const USER_EVENT: Kernel = Kernel { doer: Doer::Outside, ..declared(&[]) };

const BASE: Config = Config {
    name: "",
    chunks: &[1, 1],
    budget: 1,
    kernels: &[],
    threads: &[],
    joined: false,
    in_thread: false,
    reserve: None,
    least: 0,
};

/// Nobody waits for the launch but who is parked on what it holds: the reaper must be rung.
pub(crate) const PARKED: Config = Config {
    name: "a thread meets a launch",
    kernels: &[declared(&[(A, Write)])],
    threads: &[&[Submit(0), Touch(Write, A), Await(0)], &[Touch(Read, A), Touch(Write, A)]],
    least: 1_500,
    ..BASE
};

/// The second launch conflicts with the first over one block, the third over both and from another queue.
pub(crate) const CONFLICTS: Config = Config {
    name: "three launches, two queues, two chunks",
    budget: 2,
    kernels: &[
        declared(&[(A, Write)]),
        declared(&[(A, Write), (C, Write)]),
        Kernel { queue: 1, ..declared(&[(C, Write), (A, Read)]) },
    ],
    threads: &[&[Submit(0), Submit(1), Await(1), Await(2)], &[Submit(2), Touch(Read, C), Await(2)]],
    least: 20_000,
    ..BASE
};

/// Each admission evicts what the other launch left, while threads fault on it.
pub(crate) const CROWDED: Config = Config {
    name: "two launches with room for one",
    kernels: &[declared(&[(A, Write)]), Kernel { queue: 1, ..declared(&[(C, Read)]) }],
    threads: &[&[Submit(0), Submit(1), Await(1), Await(0)], &[Touch(Write, A), Touch(Write, C)]],
    least: 10_000,
    ..BASE
};

/// Prefetches wait for room that a launch holds.
pub(crate) const PREFETCHED: Config = Config {
    name: "prefetches and a launch with room for one",
    kernels: &[declared(&[(A, Write)])],
    threads: &[&[Submit(0), Await(0), Touch(Read, A)], &[Prefetch(Device, C), Touch(Write, C), Prefetch(Device, A)]],
    least: 2_000,
    ..BASE
};

/// The second launch waits for the first, which waits for the pin: whoever unpins looks after the first alone.
pub(crate) const PINNED: Config = Config {
    name: "launches wait for a pin, and for each other",
    kernels: &[declared(&[(A, Write)]), declared(&[(A, Write)])],
    threads: &[&[Pin(&[A]), Submit(0), Submit(1), Unpin(&[A]), Await(1)], &[Touch(Read, A)]],
    least: 6_000,
    ..BASE
};

/// Who pins needs the scheduler while it does, and an admission may be half-way meanwhile.
pub(crate) const PIN_AND_LAUNCH: Config = Config {
    name: "a thread launches while it pins what another launch wants",
    budget: 2,
    kernels: &[declared(&[(A, Write), (C, Write)]), Kernel { queue: 1, ..declared(&[(C, Read)]) }],
    threads: &[&[Submit(0), Await(0)], &[Pin(&[A]), Submit(1), Await(1), Unpin(&[A]), Await(0)]],
    least: 1_500,
    ..BASE
};

/// The kernel waits for a pin; who pins faults meanwhile; and another thread's fault waits for the kernel.
pub(crate) const HANDLER_NEEDED: Config = Config {
    name: "a kernel waits for a pin whose owner faults",
    chunks: &[1, 1, 1],
    budget: 2,
    kernels: &[Kernel { touches: &[(A, Write), (C, Write)], ..declared(&[(A, Write)]) }],
    threads: &[&[Submit(0), Touch(Write, A), Await(0)], &[Pin(&[C]), Touch(Write, D), Unpin(&[C])]],
    least: 10_000,
    ..BASE
};

/// The kernel that runs faults on what a launch behind it on the device holds.
pub(crate) const HELD_BEHIND: Config = Config {
    name: "a kernel touches what a launch behind it holds",
    budget: 2,
    kernels: &[
        Kernel { touches: &[(A, Write), (C, Write)], ..declared(&[(A, Write)]) },
        Kernel { queue: 1, ..declared(&[(C, Read)]) },
    ],
    threads: &[&[Submit(0), Submit(1), Await(1)], &[Touch(Write, C)]],
    least: 8_000,
    ..BASE
};

/// A kernel that touches two blocks more than it declares, one at once, and a launch that would take the room.
pub(crate) const UNDECLARED: Config = Config {
    name: "an undeclared kernel needs room",
    chunks: &[1, 1, 2],
    budget: 2,
    kernels: &[
        Kernel { touches: &[(A, Write), (D, Write), ((2, 1), Read)], ..declared(&[(A, Write)]) },
        Kernel { queue: 1, ..declared(&[(C, Write)]) },
    ],
    threads: &[&[Submit(0), Submit(1), Await(1), Await(0)], &[Prefetch(Device, D)]],
    reserve: Some(1),
    least: 30_000,
    ..BASE
};

/// A pin of something else finds a launch completed that another launch waits for.
pub(crate) const PIN_BESIDE: Config = Config {
    name: "a pin gives up what launches wait for",
    kernels: &[declared(&[(A, Write)]), Kernel { queue: 1, ..declared(&[(A, Write)]) }],
    threads: &[&[Submit(0), Submit(1), Await(1)], &[Pin(&[C]), Await(1), Unpin(&[C])]],
    least: 500,
    ..BASE
};

/// The event may end when everybody has looked whether it has.
pub(crate) const USER_EVENTS: Config = Config {
    name: "launches wait for the application",
    kernels: &[USER_EVENT, Kernel { after: &[0], ..declared(&[(A, Write)]) }, declared(&[(A, Write)])],
    threads: &[&[Submit(1), Submit(2), Await(2)], &[Touch(Read, A), Complete(0), Touch(Write, A)]],
    least: 1_000,
    ..BASE
};

/// Nobody waits for the launch, but has itself told.
pub(crate) const TOLD: Config = Config {
    name: "threads are told of launches",
    kernels: &[declared(&[(A, Write)]), Kernel { queue: 1, ..declared(&[(C, Write)]) }],
    threads: &[&[Submit(0), Submit(1)], &[Notified(1), Touch(Write, C)], &[Notified(0)]],
    least: 1_000,
    ..BASE
};

pub(crate) const SYSTEMS: &[Config] = &[
    USER_EVENTS,
    TOLD,
    Config {
        name: "the host prefetches in a queue's order, beside another queue",
        kernels: &[
            declared(&[(A, Write)]),
            TASK,
            declared(&[(A, Read)]),
            Kernel { queue: 1, after: &[1], ..declared(&[(C, Write)]) },
        ],
        threads: &[
            &[Submit(0), Submit(1), Submit(2), Submit(3), Await(3), Await(2)],
            &[Take(1), Prefetch(Device, C), Prefetch(Host, A), Complete(1)],
        ],
        least: 1_000,
        ..BASE
    },
    Config {
        name: "the host's prefetch meets a launch that waits for a callback",
        kernels: &[
            TASK,
            USER_EVENT,
            declared(&[(A, Write)]),
            Kernel { queue: 1, after: &[1], ..declared(&[(C, Read)]) },
        ],
        threads: &[
            &[Submit(3), Submit(0), Submit(2), Await(3)],
            &[Take(0), Prefetch(Device, C), Complete(0)],
            &[Notified(2), Touch(Write, A), Complete(1)],
        ],
        least: 1_000,
        ..BASE
    },
    Config {
        name: "launches pass on a queue out of order",
        budget: 2,
        kernels: &[
            Kernel { unordered: true, ..declared(&[(A, Write)]) },
            Kernel { unordered: true, ..declared(&[(A, Write), (C, Write)]) },
            Kernel { unordered: true, ..declared(&[(C, Write)]) },
            Kernel { queue: 1, ..declared(&[(A, Read)]) },
        ],
        threads: &[&[Submit(0), Submit(1), Submit(2), Await(1), Await(2)], &[Submit(3), Touch(Write, C), Await(3)]],
        least: 10_000,
        ..BASE
    },
    PIN_BESIDE,
    PARKED,
    CONFLICTS,
    CROWDED,
    PREFETCHED,
    PINNED,
    PIN_AND_LAUNCH,
    HANDLER_NEEDED,
    HELD_BEHIND,
    UNDECLARED,
    Config {
        name: "a launch is given up by the reaper alone",
        chunks: &[2],
        budget: 2,
        kernels: &[declared(&[(A, Write), (B, Read)])],
        threads: &[&[Submit(0)], &[Touch(Write, A), Touch(Write, B), Touch(Write, A), Await(0)]],
        least: 700,
        ..BASE
    },
    Config {
        name: "dependencies over queues",
        chunks: &[2],
        budget: 2,
        kernels: &[
            declared(&[(A, Write)]),
            Kernel { queue: 1, after: &[0], ..declared(&[(B, Write)]) },
            Kernel { queue: 1, ..declared(&[(A, Write)]) },
        ],
        threads: &[&[Submit(0), Submit(1), Submit(2), Await(2)], &[Touch(Write, B), Touch(Write, A)]],
        least: 30_000,
        ..BASE
    },
    Config {
        name: "a pin of two chunks waits for a launch",
        budget: 2,
        kernels: &[declared(&[(A, Write), (C, Write)]), declared(&[(C, Read)])],
        threads: &[&[Submit(0), Submit(1), Await(1)], &[Pin(&[A, C]), Touch(Write, A), Unpin(&[A, C]), Await(1)]],
        least: 3_500,
        ..BASE
    },
    Config {
        name: "two threads pin the same two chunks while launches come",
        budget: 2,
        kernels: &[declared(&[(A, Write), (C, Write)]), Kernel { queue: 1, after: &[0], ..declared(&[(A, Read)]) }],
        threads: &[
            &[Pin(&[C, A]), Unpin(&[C, A]), Submit(0), Await(0)],
            &[Pin(&[A, C]), Submit(1), Unpin(&[A, C]), Await(1), Await(0)],
        ],
        least: 5_000,
        ..BASE
    },
    Config {
        name: "a discard and a prefetch back wait for launches",
        chunks: &[2],
        budget: 2,
        kernels: &[declared(&[(A, Write)]), declared(&[(B, Read)])],
        threads: &[&[Submit(0), Submit(1), Await(1), Await(0)], &[Discard(A), Prefetch(Host, B), Touch(Write, B)]],
        least: 5_000,
        ..BASE
    },
    Config {
        name: "two kernels fault on each other's blocks",
        chunks: &[2, 1],
        budget: 3,
        kernels: &[
            Kernel { touches: &[(A, Write), (C, Write)], ..declared(&[(A, Write)]) },
            Kernel { queue: 1, touches: &[(C, Write), (A, Read), (B, Write)], ..declared(&[(C, Write)]) },
        ],
        threads: &[&[Submit(0), Await(0), Await(1)], &[Submit(1), Touch(Write, B), Await(1)]],
        least: 5_000,
        ..BASE
    },
    Config {
        name: "growth asks for more than there is",
        chunks: &[3, 1],
        budget: 2,
        joined: true,
        kernels: &[Kernel { touches: &[(C, Write), (A, Write), ((0, 2), Write)], ..declared(&[(C, Write)]) }],
        threads: &[&[Submit(0), Await(0)], &[Prefetch(Device, B), Touch(Write, A), Touch(Read, C)]],
        least: 1_000,
        ..BASE
    },
    Config {
        name: "three threads",
        chunks: &[2],
        kernels: &[declared(&[(A, Write)]), Kernel { queue: 1, after: &[0], ..declared(&[(B, Write)]) }],
        threads: &[&[Submit(0), Submit(1), Await(1)], &[Prefetch(Device, A)], &[Pin(&[B]), Unpin(&[B])]],
        least: 60_000,
        ..BASE
    },
];
