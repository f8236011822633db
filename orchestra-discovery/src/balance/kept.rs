//! Finds the members that stayed when a pool changes, so that their turns are not forgotten.

use std::collections::HashMap;

/// The index before of each member now, by what they are known by; without repetitions on either side.
pub(super) fn indices(before: &[u64], now: &[u64]) -> Vec<Option<usize>> {
    let shorter = before.len().min(now.len());
    let head = before.iter().zip(now).take_while(|(a, b)| a == b).count();
    let ends = before.iter().rev().zip(now.iter().rev());
    let tail = ends.take(shorter - head).take_while(|(a, b)| a == b);
    let tail = tail.count();

    // Mostly one member changed, and the middle is empty or a handful.
    let middle = before.iter().enumerate();
    let middle = middle.take(before.len() - tail).skip(head);
    let middle: HashMap<u64, usize> = middle.map(|(index, &id)| (id, index)).collect();
    let index = |(index, id): (usize, &u64)| {
        if index < head {
            Some(index)
        } else if index >= now.len() - tail {
            Some(index + before.len() - now.len())
        } else {
            middle.get(id).copied()
        }
    };
    now.iter().enumerate().map(index).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_is_found_where_it_was(
            before in Just((0..12_u64).collect::<Vec<_>>()).prop_shuffle(),
            now in Just((0..12_u64).collect::<Vec<_>>()).prop_shuffle(),
            had in 0..13_usize,
            has in 0..13_usize,
            same_start in any::<bool>(),
        ) {
            let now = if same_start { &before } else { &now };
            let (before, now) = (&before[..had], &now[..has]);
            let expected: Vec<_> = now.iter().map(|id| before.iter().position(|was| was == id)).collect();
            prop_assert_eq!(indices(before, now), expected);
        }
    }
}
