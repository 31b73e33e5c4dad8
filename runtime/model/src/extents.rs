//! Many byte ranges as few: for operations on batches. It does *not* know allocations.

use crate::geometry::Extent;

/// The same bytes as disjoint extents in ascending order, none of them empty; what overlaps or touches is joined.
#[must_use]
pub fn merged(mut extents: Vec<Extent>) -> Vec<Extent> {
    extents.retain(|extent| extent.len > 0);
    extents.sort_unstable_by_key(|extent| extent.start);
    let mut merged: Vec<Extent> = Vec::with_capacity(extents.len());
    for extent in extents {
        match merged.last_mut().filter(|last| extent.start <= last.end()) {
            Some(last) => last.len = last.end().max(extent.end()) - last.start,
            None => merged.push(extent),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn merging_keeps_the_bytes(ranges in proptest::collection::vec((0u64..200, 0u64..30), 0..30)) {
            let extents: Vec<_> = ranges.into_iter().map(|(start, len)| Extent { start, len }).collect();
            let holds = |extents: &[Extent], byte: u64| extents.iter().any(|one| (one.start..one.end()).contains(&byte));
            let joined = merged(extents.clone());
            for byte in 0..240 {
                prop_assert_eq!(holds(&joined, byte), holds(&extents, byte));
            }
            for pair in joined.windows(2) {
                prop_assert!(pair[0].end() < pair[1].start, "ascending, and with a gap");
            }
        }
    }
}
