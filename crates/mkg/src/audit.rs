//! What a graph holds and what is odd about it.
