//! Holds benchmarks only; `make bench` runs them.
