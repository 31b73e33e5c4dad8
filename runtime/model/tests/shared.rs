//! Blocks of shared homes: nothing happens to them but allocation and free.

use limosa_model::{
    Access::{Read, Write},
    BlockSet, Chunk, Copies,
    Side::{Device, Host},
    Verdict,
};

#[test]
fn shared_blocks_have_no_transitions_but_allocation_and_free() {
    let (mut chunk, blocks) = (Chunk::new(), BlockSet::run(4, 3));
    chunk.allocate(BlockSet::run(0, 4), true);
    chunk.share(blocks, true);
    assert_eq!((chunk.shared(), chunk.zero()), (blocks, BlockSet::run(0, 4)));
    for side in [Host, Device] {
        for access in [Read, Write] {
            assert!(matches!(chunk.fault(side, 5, BlockSet::ALL, access), Verdict::Done));
        }
        assert!(matches!(chunk.prefetch(side, blocks), Verdict::Done));
    }
    for verdict in [chunk.evict(blocks), chunk.drop_host(blocks), chunk.write_back(blocks), chunk.discard(blocks)] {
        assert!(matches!(verdict, Verdict::Done));
    }
    // Growth does not reach into them, and a pin of them is nothing.
    let Verdict::Go(plan) = chunk.fault(Host, 3, BlockSet::ALL, Write) else { panic!("a fault is served") };
    assert!((plan.covers & blocks).is_empty());
    chunk.commit(&plan);
    let Verdict::Go(plan) = chunk.pin(BlockSet::ALL & chunk.allocated()) else { panic!("nothing is in the way") };
    chunk.commit(&plan);
    assert_eq!(chunk.pinned(), BlockSet::run(0, 4));
    chunk.unpin(chunk.allocated());
    assert_eq!(chunk.device_lost(), Ok(BlockSet::EMPTY));
    assert_eq!(chunk.state(4).copies, Copies::Shared);
    chunk.free(blocks);
    assert_eq!(chunk.state(4).copies, Copies::Unallocated);
}
