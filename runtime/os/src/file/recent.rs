//! Answers that were found out not long ago. It does *not* know when an answer ages: its key must be of what never changes.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Answers that are kept at most: more disks or mounts than that are seldom used in turn.
const MOST: usize = 64;

/// Answers by what was asked about, the latest last.
pub(super) struct Recent<K, V> {
    known: Mutex<VecDeque<(K, V)>>,
}

impl<K: PartialEq, V: Clone> Recent<K, V> {
    pub(super) const fn new() -> Self {
        Self { known: Mutex::new(VecDeque::new()) }
    }

    /// The answer. Where none is kept it asks, without holding others up; that there is none is not kept.
    pub(super) fn get(&self, key: K, ask: impl FnOnce() -> Option<V>) -> Option<V> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, answer)) = known().iter().find(|(about, _)| *about == key) {
            return Some(answer.clone());
        }
        let answer = ask()?;
        let mut known = known();
        if known.len() == MOST {
            known.pop_front();
        }
        known.push_back((key, answer.clone()));
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_once_and_keeps_no_more_than_it_may() {
        let recent = Recent::new();
        assert_eq!(recent.get(0, || None), None);
        for key in 0..2 * MOST {
            assert_eq!(recent.get(key, || Some(key)), Some(key), "that there was none is not kept");
            assert_eq!(recent.get(key, || unreachable!("it is known")), Some(key));
        }
        assert_eq!(recent.known.lock().unwrap().len(), MOST);
        assert_eq!(recent.get(0, || Some(7)), Some(7), "it was forgotten");
    }
}
