//! Positions of another number of patches than a ViT was trained with.

use candle_core::{IndexOp, Result, Tensor};

/// Positions `(1, 1 + patch, hidden)` for so many `patches` of a square, from those of another square; the class token's
/// stays. Bicubic, as PyTorch does it without antialiasing.
pub(super) fn interpolated(positions: &Tensor, patches: usize) -> Result<Tensor> {
    let (_, tokens, hidden) = positions.dims3()?;
    let (old, new) = ((tokens - 1).isqrt(), patches.isqrt());
    if tokens - 1 == patches {
        return Ok(positions.clone());
    }
    let weights = Tensor::from_vec(cubic(old, new), (new, old), positions.device())?;
    // The first axis each time: rows, then columns.
    let along =
        |grid: Tensor| weights.matmul(&grid.contiguous()?.flatten_from(1)?)?.reshape((new, (), hidden));
    let grid = positions.i((0, 1..))?.reshape((old, old, hidden))?;
    let grid = along(along(grid)?.transpose(0, 1)?)?.transpose(0, 1)?;
    Tensor::cat(&[positions.i((.., ..1))?, grid.reshape((1, patches, hidden))?], 1)
}

/// How much each of the `old` places along a side counts in each of the `new` ones, `(new, old)`.
fn cubic(old: usize, new: usize) -> Vec<f32> {
    let mut weights = vec![0.0; new * old];
    for (i, row) in weights.chunks_exact_mut(old).enumerate() {
        // Centres of places lie half a place from the edges.
        let at = (i as f64 + 0.5) * old as f64 / new as f64 - 0.5;
        for tap in -1..=2 {
            let place = at.floor() + f64::from(tap);
            row[place.clamp(0.0, (old - 1) as f64) as usize] += kernel((at - place).abs()) as f32;
        }
    }
    weights
}

/// Keys's cubic convolution of a distance in places, with a = -0.75.
fn kernel(x: f64) -> f64 {
    const A: f64 = -0.75;
    match x {
        x if x <= 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => ((x - 5.0) * x + 8.0) * x * A - 4.0 * A,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_straight_line_stays_one_in_the_middle() {
        let row = |new: usize| -> Vec<f32> {
            let line = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
            cubic(8, new).chunks(8).map(|row| row.iter().zip(line).map(|(w, x)| w * x).sum()).collect()
        };
        let close = |a: f32, b: f32| (a - b).abs() < 1e-6;
        assert!(row(16)[4..12].iter().enumerate().all(|(i, x)| close(*x, i as f32 / 2.0 + 1.75)));
        assert!(cubic(8, 5).chunks(8).all(|row| close(row.iter().sum(), 1.0)));
        assert!(row(8).iter().enumerate().all(|(i, x)| close(*x, i as f32)));
    }

    #[test]
    fn the_class_token_keeps_its_position() {
        let positions = Tensor::arange(0f32, 20.0, &Device::Cpu).unwrap().reshape((1, 10, 2)).unwrap();
        let larger = interpolated(&positions, 36).unwrap();
        assert_eq!(larger.dims(), [1, 37, 2]);
        assert_eq!(larger.i((0, 0)).unwrap().to_vec1::<f32>().unwrap(), [0.0, 1.0]);
    }
}
