//! Common code of the benchmarks; `make bench` and `make bench-parts` run them.

/// The numbers on the command line.
pub fn numbers() -> Vec<usize> {
    std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect()
}

/// The middle one of `values`, the higher of two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
