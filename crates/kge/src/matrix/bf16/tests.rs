use half::bf16;

use super::*;
use crate::Matrix;
use crate::matrix::ProductPrecision;

/// Numbers of many magnitudes.
fn numbers(rows: usize, columns: usize, seed: usize) -> Matrix<f32> {
    let value = |i: usize| {
        let x = ((i + 1) * (seed + 7919)) % 10_007;
        (x as f32 / 10_007.0 - 0.4) * 10f32.powi((x % 5) as i32 - 6)
    };
    Matrix::from_values(rows, columns, (0..rows * columns).map(value).collect())
}

/// The kernels of this machine; prints a message if there are none.
fn kernels() -> Vec<Kernel> {
    let all = Kernel::all();
    if all.is_empty() {
        eprintln!("skipped: no instructions for bf16");
    }
    all
}

fn value(view: &View<'_, f32>, row: usize, column: usize) -> f32 {
    view.values[row * view.row_stride + column * view.column_stride]
}

/// Compares `c = kept + a · b` with the product in `f64` of the same rounded numbers.
fn assert_product(c: &Matrix<f32>, kept: Option<&Matrix<f32>>, a: View<'_, f32>, b: View<'_, f32>) {
    let rounded = |x: f32| bf16::from_f32(x).to_f64();
    for row in 0..c.rows() {
        for column in 0..c.columns() {
            let start = kept.map_or(0.0, |kept| f64::from(kept.row(row)[column]));
            let (mut exact, mut size) = (start, start.abs());
            for k in 0..a.columns {
                let term = rounded(value(&a, row, k)) * rounded(value(&b, k, column));
                exact += term;
                size += term.abs();
            }
            let ours = f64::from(c.row(row)[column]);
            // The largest error of adding pairs one after another in f32.
            let bound = (a.columns as f64 / 2.0 + 3.0) * f64::from(f32::EPSILON) / 2.0 * size;
            assert!((ours - exact).abs() <= bound, "({row}, {column}): {ours}, exactly {exact}");
        }
    }
}

#[test]
fn products_in_all_orientations_and_odd_shapes() {
    for kernel in kernels() {
        for (m, n, k) in [(1, 1, 1), (16, 32, 64), (33, 31, 35), (5, 100, 545), (97, 3, 1200), (300, 70, 2)] {
            for (a_transposed, b_transposed) in [(false, false), (false, true), (true, false), (true, true)] {
                let a = if a_transposed { numbers(k, m, 1) } else { numbers(m, k, 1) };
                let b = if b_transposed { numbers(n, k, 2) } else { numbers(k, n, 2) };
                let a = if a_transposed { a.transposed() } else { a.view() };
                let b = if b_transposed { b.transposed() } else { b.view() };
                let mut c = numbers(m, n, 3);
                c.values_mut().fill(f32::NAN);
                c.product_in(ProductPrecision::Bf16(kernel), false, a, b);
                assert_product(&c, None, a, b);
                let kept = numbers(m, n, 4);
                let mut c = kept.clone();
                c.product_in(ProductPrecision::Bf16(kernel), true, a, b);
                assert_product(&c, Some(&kept), a, b);
            }
        }
    }
}

#[test]
fn nothing_to_multiply_and_extremes() {
    for kernel in kernels() {
        let precision = ProductPrecision::Bf16(kernel);
        let (tall, wide) = (Matrix::zeros(3, 0), Matrix::zeros(0, 4));
        let mut c = numbers(3, 4, 1);
        c.product_in(precision, true, tall.view(), wide.view());
        assert_eq!(c, numbers(3, 4, 1));
        c.product_in(precision, false, tall.view(), wide.view());
        assert_eq!(c, Matrix::zeros(3, 4));
        let product = |a: [f32; 3]| {
            let (a, b) = (Matrix::from_values(1, 3, a.to_vec()), vec![0.0, 1e30, 1e30]);
            let mut c = Matrix::zeros(1, 1);
            c.product_in(precision, false, a.view(), Matrix::from_values(3, 1, b).view());
            c.values()[0]
        };
        assert!(product([f32::NAN, 1.0, 1.0]).is_nan());
        assert_eq!(product([1.0, f32::INFINITY, 1.0]), f32::INFINITY);
        // Gradients are tiny, but bf16 has the exponent range of f32.
        assert!((product([0.0, 1e-30, 1e-36]) - 1.0).abs() < 1e-2);
    }
}

/// Uses enough panels for several tasks, groups and chunks.
#[test]
fn products_do_not_depend_on_the_number_of_threads() {
    let (a, b) = (numbers(530, 611, 1), numbers(1203, 611, 2));
    let bf16 = kernels().into_iter().map(ProductPrecision::Bf16);
    for precision in bf16.chain([ProductPrecision::Full]) {
        let product = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut scores = Matrix::zeros(530, 1203);
                scores.product_in(precision, false, a.view(), b.transposed());
                let (mut left, mut right) = (Matrix::zeros(530, 611), Matrix::zeros(1203, 611));
                left.product_in(precision, false, scores.view(), b.view());
                right.product_in(precision, false, scores.transposed(), a.view());
                (scores, left, right)
            })
        };
        let one = product(1);
        assert!((2..6).all(|threads| product(threads) == one), "{precision}");
        if precision != ProductPrecision::Full {
            let [scores, a] = [&one.0, &a]
                .map(|of| Matrix::from_values(2, of.columns(), of.values()[..2 * of.columns()].to_vec()));
            assert_product(&scores, None, a.view(), b.transposed());
        }
    }
}
