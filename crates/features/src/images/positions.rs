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

/// The weights of the `old` places along a side in each of the `new` ones, `(new, old)`.
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

    /// `torch.nn.functional.interpolate(.., mode="bicubic", align_corners=False)` of a row.
    #[test]
    fn rows_are_interpolated_as_pytorch_does() {
        let row = [0.0, 1.0, 4.0, 9.0, 16.0, 8.0];
        let interpolated = |new: usize| -> Vec<f32> {
            cubic(6, new).chunks(6).map(|weights| weights.iter().zip(row).map(|(w, x)| w * x).sum()).collect()
        };
        let fewer = [0.121094, 2.828125, 11.394531, 10.058594];
        let more = [-0.086806, 0.21875, 1.430555, 3.152778, 6.125, 10.577546, 15.776623, 12.65625, 7.305552];
        for theirs in [&fewer[..], &more, &row] {
            let ours = interpolated(theirs.len());
            assert!(ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() < 1e-5), "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn the_class_token_keeps_its_position() {
        let positions = Tensor::arange(0f32, 20.0, &Device::Cpu).unwrap().reshape((1, 10, 2)).unwrap();
        let larger = interpolated(&positions, 36).unwrap();
        assert_eq!(larger.dims(), [1, 37, 2]);
        assert_eq!(larger.i((0, 0)).unwrap().to_vec1::<f32>().unwrap(), [0.0, 1.0]);
    }
}
