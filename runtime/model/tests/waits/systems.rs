//! The small systems that are searched, chosen so that every waiting relation of the pager occurs in one.

use limosa_model::{
    Access::{Read, Write},
    Side::{Device, Host},
};

use crate::world::{
    At, Config, Kernel,
    Op::{Await, Discard, Pin, Prefetch, Submit, Touch, Unpin},
};

const A: At = (0, 0);
const B: At = (0, 1);
const C: At = (1, 0);

/// A launch on queue 0 that touches what it declares.
const fn writes(set: &'static [(At, limosa_model::Access)]) -> Kernel {
    Kernel { queue: 0, after: &[], set, touches: set }
}

const BASE: Config =
    Config { name: "", chunks: &[1], budget: 1, kernels: &[], threads: &[], in_thread: false, reserve: None, least: 0 };

pub const SYSTEMS: &[Config] = &[
    Config {
        name: "a thread meets a launch",
        kernels: &[writes(&[(A, Write)])],
        threads: &[&[Submit(0), Touch(Write, A), Await(0)], &[Touch(Read, A), Touch(Write, A)]],
        ..BASE
    },
    Config {
        name: "a thread meets a launch, in-thread",
        kernels: &[writes(&[(A, Write)])],
        threads: &[&[Submit(0), Touch(Write, A), Await(0)], &[Touch(Read, A), Touch(Write, A)]],
        in_thread: true,
        ..BASE
    },
    Config {
        name: "a launch is given up by the reaper alone",
        chunks: &[2],
        budget: 2,
        kernels: &[writes(&[(A, Write), (B, Read)])],
        threads: &[&[Submit(0)], &[Touch(Write, A), Touch(Write, B), Touch(Write, A), Await(0)]],
        ..BASE
    },
    Config {
        name: "three launches, two queues, two chunks",
        chunks: &[1, 1],
        budget: 2,
        kernels: &[
            writes(&[(A, Write)]),
            writes(&[(A, Write), (C, Write)]),
            Kernel { queue: 1, ..writes(&[(C, Write), (A, Read)]) },
        ],
        threads: &[&[Submit(0), Submit(1), Await(1), Await(2)], &[Submit(2), Touch(Read, C), Await(2)]],
        ..BASE
    },
    Config {
        name: "two launches with room for one",
        chunks: &[1, 1],
        kernels: &[writes(&[(A, Write)]), Kernel { queue: 1, ..writes(&[(C, Read)]) }],
        threads: &[&[Submit(0), Submit(1), Await(1), Await(0)], &[Touch(Write, A), Touch(Write, C)]],
        ..BASE
    },
    Config {
        name: "two launches with room for one, in-thread",
        chunks: &[1, 1],
        kernels: &[writes(&[(A, Write)]), Kernel { queue: 1, ..writes(&[(C, Read)]) }],
        threads: &[&[Submit(0), Submit(1), Await(1), Await(0)], &[Touch(Write, A), Touch(Write, C)]],
        in_thread: true,
        ..BASE
    },
    Config {
        name: "a prefetch with room for one",
        chunks: &[1, 1],
        kernels: &[writes(&[(A, Write)])],
        threads: &[
            &[Submit(0), Await(0), Touch(Read, A)],
            &[Prefetch(Device, C), Touch(Write, C), Prefetch(Device, A)],
        ],
        ..BASE
    },
    Config {
        name: "dependencies over queues",
        chunks: &[2],
        budget: 2,
        kernels: &[
            writes(&[(A, Write)]),
            Kernel { queue: 1, after: &[0], ..writes(&[(B, Write)]) },
            Kernel { queue: 1, ..writes(&[(A, Write)]) },
        ],
        threads: &[&[Submit(0), Submit(1), Submit(2), Await(2)], &[Touch(Write, B), Touch(Write, A)]],
        ..BASE
    },
    Config {
        name: "launches wait for a pin, and for each other",
        kernels: &[writes(&[(A, Write)]), writes(&[(A, Write)])],
        threads: &[&[Pin(&[A]), Submit(0), Submit(1), Unpin(&[A]), Await(1)], &[Touch(Read, A)]],
        ..BASE
    },
    Config {
        name: "a pin of two chunks waits for a launch",
        chunks: &[1, 1],
        budget: 2,
        kernels: &[writes(&[(A, Write), (C, Write)]), writes(&[(C, Read)])],
        threads: &[&[Submit(0), Submit(1), Await(1)], &[Pin(&[A, C]), Touch(Write, A), Unpin(&[A, C]), Await(1)]],
        ..BASE
    },
    Config {
        name: "a discard and a prefetch back wait for launches",
        chunks: &[2],
        budget: 2,
        kernels: &[writes(&[(A, Write)]), writes(&[(B, Read)])],
        threads: &[&[Submit(0), Submit(1), Await(1), Await(0)], &[Discard(A), Prefetch(Host, B), Touch(Write, B)]],
        ..BASE
    },
    Config {
        name: "a kernel touches what a launch behind it holds",
        chunks: &[1, 1],
        budget: 2,
        kernels: &[
            Kernel { touches: &[(A, Write), (C, Write)], ..writes(&[(A, Write)]) },
            Kernel { queue: 1, ..writes(&[(C, Read)]) },
        ],
        threads: &[&[Submit(0), Submit(1), Await(1)], &[Touch(Write, C)]],
        ..BASE
    },
    UNDECLARED,
];

/// A kernel that may touch what it does not declare, one block at once, and a launch that would take the room.
pub const UNDECLARED: Config = Config {
    name: "an undeclared kernel needs room",
    chunks: &[1, 1, 1],
    budget: 2,
    kernels: &[
        Kernel { touches: &[(A, Write), ((2, 0), Write)], ..writes(&[(A, Write)]) },
        Kernel { queue: 1, ..writes(&[(C, Write)]) },
    ],
    threads: &[&[Submit(0), Submit(1), Await(1), Await(0)], &[Touch(Write, (2, 0)), Prefetch(Device, (2, 0))]],
    reserve: Some(1),
    ..BASE
};
