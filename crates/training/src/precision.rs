//! Products that a recipe's precision means on this machine.

use kge::ProductPrecision;
use kge::matrix::bf16::Kernel;

/// The precision that is asked for, or full precision and a warning where the processor has none other.
pub fn precision(asked: recipe::Precision) -> ProductPrecision {
    match (asked, Kernel::fastest()) {
        (recipe::Precision::F32, _) => ProductPrecision::Full,
        (recipe::Precision::Tf32, _) => {
            tracing::info!("tf32 is for CUDA devices: products are in f32");
            ProductPrecision::Full
        }
        (recipe::Precision::Bf16, Some(kernel)) => ProductPrecision::Bf16(kernel),
        (recipe::Precision::Bf16, None) => {
            tracing::warn!("this processor has no instructions for bf16: products are in f32");
            ProductPrecision::Full
        }
    }
}
