//! One step of heat on a plate: each inner cell becomes the mean of its four neighbours, the rim stays as it is.
//! It does not iterate: the caller exchanges the two grids.

use crate::Kernel;

/// The kernel's arguments. Launch `width * height` invocations or more.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// The result: the address of `width * height` `f32`, row by row. All of them are written.
    pub next: u64,
    /// The state: the address of as many `f32`, elsewhere.
    pub now: u64,
    /// Cells of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}
assert_layout!(Args, 24, { next: 0, now: 8, width: 16, height: 20 });

/// The kernel.
pub const KERNEL: Kernel = kernel!("stencil");

/// What the kernel does with whole rows of `width` cells; grids of other shapes stay as they are.
pub fn twin(next: &mut [f32], now: &[f32], width: usize) {
    if width == 0 || next.len() != now.len() || !now.len().is_multiple_of(width) {
        return;
    }
    next.copy_from_slice(now);
    if width < 3 {
        return;
    }
    // Slices of one row each, so that no index is checked in the inner loop.
    for (row, target) in next.chunks_exact_mut(width).enumerate().skip(1) {
        let rows = (now.get((row - 1) * width..row * width), now.get((row + 1) * width..(row + 2) * width));
        let (Some(above), Some(below)) = rows else { return };
        let here = now[row * width..(row + 1) * width].windows(3);
        let vertical = above[1..].iter().zip(&below[1..]);
        for ((cell, (above, below)), here) in target[1..width - 1].iter_mut().zip(vertical).zip(here) {
            *cell = 0.25 * (above + below + here[0] + here[2]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_cells_become_means_and_the_rim_stays() {
        let now: Vec<f32> = (0..20u8).map(|i| f32::from(i) * f32::from(i)).collect();
        let mut next = vec![-1.0; 20];
        twin(&mut next, &now, 5);
        for (i, value) in next.iter().enumerate() {
            let inner = (1..4).contains(&(i % 5)) && (1..3).contains(&(i / 5));
            let mean = || (now[i - 5] + now[i + 5] + now[i - 1] + now[i + 1]) / 4.0;
            assert_eq!(*value, if inner { mean() } else { now[i] }, "cell {i}");
        }
    }

    #[test]
    fn what_has_no_inner_cells_is_copied_and_other_shapes_are_not_touched() {
        for (width, len) in [(2, 6), (6, 6), (3, 6), (1, 3)] {
            let mut next = vec![0.0; len];
            twin(&mut next, &vec![7.0; len], width);
            assert_eq!(next, vec![7.0; len]);
        }
        let mut next = [0.0; 6];
        twin(&mut next, &[7.0; 6], 4);
        twin(&mut next, &[7.0; 6], 0);
        twin(&mut next, &[7.0; 9], 3);
        assert_eq!(next, [0.0; 6]);
    }
}
