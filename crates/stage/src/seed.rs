//! One seed per run, split by name: no two uses share a stream, and no use depends on the length of another.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// The generator for one purpose. `name` is the purpose (`"teacher/visual/batches"`), `index` the occasion (the epoch).
///
/// A resumed run asks for the same name and index and gets the same stream, so the generator's state is never saved.
///
/// ```
/// use rand::Rng;
/// let draw = |index| stage::seed::generator(7, "batches", index).next_u64();
/// assert_eq!(draw(3), draw(3));
/// assert_ne!(draw(3), draw(4));
/// ```
pub fn generator(seed: u64, name: &str, index: u64) -> ChaCha8Rng {
    let mut hasher = Sha256::new();
    hasher.update(seed.to_le_bytes());
    hasher.update(index.to_le_bytes());
    hasher.update(name.as_bytes());
    ChaCha8Rng::from_seed(hasher.finalize().into())
}
