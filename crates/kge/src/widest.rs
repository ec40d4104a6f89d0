//! Loops with the widest vectors that the processor has, found at run time.

#[doc(hidden)]
pub use pulp::Arch;

/// A value that cannot be copied. A closure that moves it can be called only once.
#[doc(hidden)]
#[derive(Debug)]
pub struct Once;

/// Evaluates an expression with the widest vectors that the processor has.
///
/// ```
/// let (mut xs, ys) = ([1.0f32, 2.0, 3.0], [10.0, 20.0, 30.0]);
/// kge::widest!(xs.iter_mut().zip(&ys).for_each(|(x, y)| *x += y));
/// assert_eq!(xs, [11.0, 22.0, 33.0]);
/// ```
///
/// The closure inside must be callable only once (`FnOnce`). For an `Fn` or `FnMut` closure the compiler makes a
/// separate function for the baseline processor, and compiles the whole loop into that function.
#[macro_export]
macro_rules! widest {
    ($body:expr) => {{
        let once = $crate::widest::Once;
        $crate::widest::Arch::new().dispatch(
            #[inline(always)]
            || {
                let _moved = once;
                $body
            },
        )
    }};
}
