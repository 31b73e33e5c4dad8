//! That allocations lie apart, come back, grow and rest as the arena says.

use super::*;
use crate::nearby::{Nearby, Relation};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Allocate { len: u64, align: u32 },
    AllocateResizable { len: u64, room: u64 },
    Resize { which: usize, len: u64 },
    Free { which: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0u64..300_000, 0u32..22).prop_map(|(len, align)| Step::Allocate { len, align }),
        (0u64..3_000_000, 0u64..9_000_000).prop_map(|(len, room)| Step::AllocateResizable { len, room }),
        (any::<usize>(), 0u64..9_000_000).prop_map(|(which, len)| Step::Resize { which, len }),
        any::<usize>().prop_map(|which| Step::Free { which }),
    ];
    proptest::collection::vec(step, 1..200)
}

const HEAP: u64 = 64 << 20;

/// The longest stretch of blocks that no live allocation uses, rooms or not.
fn longest_gap(live: &[Extent]) -> u64 {
    let mut used: Vec<_> = live.iter().map(|one| one.to_blocks()).collect();
    used.sort_by_key(|one| one.start);
    let starts = used.iter().map(|one| one.start).chain([HEAP]);
    let ends = std::iter::once(0).chain(used.iter().map(|one| one.end()));
    starts.zip(ends).map(|(start, end)| start.saturating_sub(end)).max().unwrap()
}

fn is_apart(new: Extent, live: &[Extent]) -> Result<(), TestCaseError> {
    prop_assert!(new.end() <= HEAP);
    for old in live {
        prop_assert!(new.end() <= old.start || old.end() <= new.start, "{new:?} {old:?}");
        if new.len >= BLOCK || old.len >= BLOCK {
            let (a, b) = (new.to_blocks(), old.to_blocks());
            prop_assert!(a.end() <= b.start || b.end() <= a.start, "blocks shared");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn allocations_are_disjoint_and_come_back(steps in steps()) {
        let mut arena = Arena::new(HEAP);
        let (mut live, mut resizable) = (Vec::<Extent>::new(), BTreeSet::new());
        for step in steps {
            match step {
                Step::Allocate { .. } | Step::AllocateResizable { .. } => {
                    let (placed, len, align) = match step {
                        Step::Allocate { len, align } => (arena.allocate(len, 1 << align), len, 1 << align),
                        Step::AllocateResizable { len, room } => (arena.allocate_resizable(len, 16, room), len, 16),
                        _ => unreachable!(),
                    };
                    match placed {
                        Ok(placed) => {
                            let new = placed.extent;
                            prop_assert_eq!(new.start % align, 0);
                            is_apart(new, &live)?;
                            prop_assert_eq!(arena.containing(new.start + new.len / 2), Some(new));
                            live.push(new);
                            if matches!(step, Step::AllocateResizable { .. }) {
                                resizable.insert(new.start);
                            }
                        }
                        // Room yields: nothing is refused that fits between allocations.
                        Err(_) => prop_assert!(longest_gap(&live) < round_up(len.max(align), CHUNK) + CHUNK),
                    }
                }
                Step::Resize { which, len } if !live.is_empty() => {
                    let old = live.swap_remove(which % live.len());
                    let new = match arena.resize(old.start, len) {
                        Ok(resized) => {
                            prop_assert!(resizable.contains(&old.start) || old.len < BLOCK);
                            let new = Extent { start: old.start, len: len.max(1) };
                            let (before, after) = (old.to_blocks(), new.to_blocks());
                            let expected = match (after.end(), before.end()) {
                                (a, b) if a > b => Resized::Grown(Extent { start: b, len: a - b }),
                                (a, b) if a < b => Resized::Shrunk(Extent { start: a, len: b - a }),
                                _ => Resized::Within,
                            };
                            prop_assert_eq!(resized, expected);
                            new
                        }
                        Err(_) => old,
                    };
                    is_apart(new, &live)?;
                    prop_assert_eq!(arena.containing(new.start + new.len / 2), Some(new));
                    live.push(new);
                }
                Step::Free { which } if !live.is_empty() => {
                    let gone = live.swap_remove(which % live.len());
                    resizable.remove(&gone.start);
                    prop_assert_eq!(arena.free(gone.start).unwrap().extent, gone);
                    prop_assert_eq!(arena.containing(gone.start), None);
                    prop_assert!(arena.free(gone.start).is_err());
                }
                Step::Resize { .. } | Step::Free { .. } => {}
            }
            let all: Vec<_> = arena.resizable_in(Extent { start: 0, len: HEAP }).map(|one| one.start).collect();
            prop_assert_eq!(all, resizable.iter().copied().collect::<Vec<_>>());
        }
        for extent in live {
            arena.free(extent.start).unwrap();
        }
        prop_assert!(arena.is_empty());
        prop_assert_eq!(arena.allocate(HEAP, 1).unwrap().extent, Extent { start: 0, len: HEAP });
    }
}

#[test]
fn what_has_room_grows_where_it_is_until_others_need_it() {
    let mut arena = Arena::new(HEAP);
    let growing = arena.allocate_resizable(1 << 20, 16, 15 << 20).unwrap().extent;
    let others: Vec<_> = std::iter::from_fn(|| arena.take_free(BLOCK, BLOCK).ok()).collect();
    assert_eq!(others.len(), 48 * 16, "others get the rest, and no more");
    let grown = Extent { start: growing.end(), len: 7 << 20 };
    assert_eq!(arena.resize(growing.start, 8 << 20), Ok(Resized::Grown(grown)));
    let last = arena.allocate(4 << 20, 1).unwrap().extent;
    assert!(last.start >= growing.start + (8 << 20), "of what was kept");
    let refused = arena.resize(growing.start, 16 << 20);
    assert!(matches!(refused, Err(ArenaError::Full { .. })), "{refused:?}");
    assert_eq!(
        arena.resize(growing.start, 1),
        Ok(Resized::Shrunk(Extent { start: growing.start + BLOCK, len: (8 << 20) - BLOCK }))
    );
}

#[test]
fn only_what_was_to_be_resized_is() {
    let mut arena = Arena::new(HEAP);
    for len in [100, BLOCK] {
        let plain = arena.allocate(len, 1).unwrap().extent;
        assert_eq!(arena.resize(plain.start, 2 * BLOCK), Err(ArenaError::NotAllocated(plain.start)));
    }
}

#[test]
fn what_is_withheld_is_never_given_again() {
    let mut arena = Arena::new(4 << 20);
    arena.withhold(Extent { start: 1 << 20, len: 1 << 20 });
    let placed: Vec<_> = std::iter::from_fn(|| arena.allocate(BLOCK, 1).ok()).map(|one| one.extent.start).collect();
    assert_eq!(placed.len(), 48);
    assert!(placed.iter().all(|start| !(1 << 20..2 << 20).contains(start)));
}

#[test]
fn own_blocks_are_whole_but_for_what_nobody_uses() {
    let mut arena = Arena::new(64 << 20);
    let large = arena.allocate(3 * BLOCK + 5, 1).unwrap().extent;
    let small = arena.allocate(100, 1).unwrap().extent;
    let own = |start, len| arena.own_blocks(Extent { start: large.start + start, len });
    let blocks = |first, count| Extent { start: large.start + first * BLOCK, len: count * BLOCK };
    assert_eq!(own(0, large.len), blocks(0, 4), "the rest of the last block is nobody's");
    assert_eq!(own(1, large.len - 1), blocks(1, 3));
    assert_eq!(own(0, large.len - 1), blocks(0, 3));
    assert_eq!(own(BLOCK, BLOCK + 7), blocks(1, 1));
    assert_eq!(own(1, 10).len, 0);
    assert_eq!(arena.own_blocks(small).len, 0, "shared");
}

proptest! {
    #[test]
    fn guarded_allocations_have_blocks_of_nobody_around_them_and_rest_when_freed(
        steps in proptest::collection::vec((any::<bool>(), 0u64..300_000, 0u32..22), 1..200), at_start: bool
    ) {
        let edge = if at_start { Edge::Start } else { Edge::End };
        let mut arena = Arena::guarded(64 << 20, edge);
        let (mut live, mut freed): (Vec<Extent>, Vec<Extent>) = (Vec::new(), Vec::new());
        for (allocate, size, align) in steps {
            if allocate || live.is_empty() {
                let align = 1u64 << align;
                let Ok(placed) = arena.allocate(size, align) else { continue };
                let (new, blocks) = (placed.extent, placed.fresh_blocks.unwrap());
                prop_assert_eq!(new.start % align, 0);
                prop_assert_eq!(new.to_blocks(), blocks);
                match edge {
                    Edge::Start => prop_assert_eq!(new.start, blocks.start),
                    Edge::End => prop_assert!(blocks.end() - new.end() < align.min(BLOCK)),
                }
                prop_assert!(blocks.start >= BLOCK && blocks.end() + BLOCK <= arena.len());
                let apart = |other: &Extent| {
                    let other = other.to_blocks();
                    blocks.end() + BLOCK <= other.start || other.end() + BLOCK <= blocks.start
                };
                prop_assert!(live.iter().all(apart), "no guard between");
                // Far less than half is ever used here.
                prop_assert!(freed.iter().all(apart), "used again at once");
                prop_assert_eq!(arena.nearby(new.start).unwrap().relation, Relation::Inside(0));
                let (past, before) = (arena.nearby(blocks.end()), arena.nearby(blocks.start - 1));
                prop_assert_eq!(past.unwrap().allocation, new);
                prop_assert_eq!(past.unwrap().relation, Relation::Past(blocks.end() - new.end() + 1));
                prop_assert!(matches!(before.unwrap().relation, Relation::Before(_) | Relation::Past(_)));
                live.push(new);
            } else {
                let gone = live.swap_remove(usize::try_from(size).unwrap() % live.len());
                prop_assert_eq!(arena.free(gone.start).unwrap().extent, gone);
                let nearby = arena.nearby(gone.end() - 1).unwrap();
                prop_assert_eq!(nearby, Nearby { allocation: gone, relation: Relation::Freed(gone.len - 1) });
                if freed.iter().map(|one| one.to_blocks().len + BLOCK).sum::<u64>() < 24 << 20 {
                    freed.push(gone);
                }
            }
        }
    }
}

#[test]
fn what_rests_is_used_again_when_there_is_no_other_room() {
    let mut arena = Arena::guarded(4 << 20, Edge::End);
    let first = arena.allocate(3 << 20, 1).unwrap().extent;
    arena.free(first.start).unwrap();
    assert!(arena.freed(first.start).is_none(), "more than half does not rest");
    let small: Vec<_> = (0..10).map(|_| arena.allocate(1, 1).unwrap().extent).collect();
    small.iter().for_each(|one| assert_eq!(arena.free(one.start).unwrap().extent, *one));
    assert!(small.iter().all(|one| arena.freed(one.start) == Some(*one)));
    arena.allocate(3 << 20, 1).unwrap();
    assert!(small.iter().any(|one| arena.freed(one.start).is_none()));
    assert!(arena.allocate(2 << 20, 1).is_err());
    assert!(small.iter().all(|one| arena.freed(one.start).is_none()), "all that rested was tried");
}

#[test]
fn what_is_withheld_does_not_rest() {
    let mut arena = Arena::guarded(4 << 20, Edge::End);
    let one = arena.allocate(5, 1).unwrap();
    arena.free(one.extent.start).unwrap();
    arena.withhold(one.fresh_blocks.unwrap());
    let others: Vec<_> = std::iter::from_fn(|| arena.allocate(1, 1).ok()).map(|one| one.extent).collect();
    assert_eq!(others.len(), 30);
    assert!(others.iter().all(|other| other.to_blocks() != one.extent.to_blocks()));
}

#[test]
fn a_full_arena_names_both_sizes() {
    let mut arena = Arena::new(4 << 20);
    arena.allocate(3 << 20, 1).unwrap();
    let error = arena.allocate(2 << 20, 1).unwrap_err();
    assert_eq!(error, ArenaError::Full { asked: 2 << 20, largest: 1 << 20 });
}
