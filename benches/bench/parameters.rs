//! Parameters that any program can make the same: the references draw the very same numbers.

use kge::Matrix;

/// Even numbers in `±scale`: the hash (Mueller's `lowbias32`) of each position, which must fit 32 bits.
pub(crate) fn even(rows: usize, columns: usize, scale: f64, stream: u32) -> Matrix<f32> {
    let value = |i: usize| {
        let unit = f64::from(hash(i as u32 ^ hash(stream))) / f64::from(1u32 << 31) - 1.0;
        (unit * scale) as f32
    };
    Matrix::from_values(rows, columns, (0..rows * columns).map(value).collect())
}

fn hash(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// The same embeddings at a higher complex rank: the further components are zero, so every score stays what it is.
///
/// A teacher that was trained at a low rank stands in for one of any rank: its scores are real, and computing them
/// costs what the higher rank costs.
pub(crate) fn widened(table: &Matrix<f32>, rank: usize) -> Matrix<f32> {
    let own = table.columns() / 2;
    let mut wide = Matrix::zeros(table.rows(), 2 * rank);
    let kept = own.min(rank);
    for row in 0..table.rows() {
        let (re, im) = wide.row_mut(row).split_at_mut(rank);
        re[..kept].copy_from_slice(&table.row(row)[..kept]);
        im[..kept].copy_from_slice(&table.row(row)[own..own + kept]);
    }
    wide
}
