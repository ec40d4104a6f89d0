//! Batches on several threads, results as they come.
//!
//! A batch of an encoder is a chain of small matrix products and element-wise steps. Splitting each of them over the
//! cores leaves the cores waiting for each other at every step; giving each core a batch of its own does not. Measured
//! on two cores with MiniLM and 22 tokens per text: 122 texts/s, against 90 with each step split, and 93 with batches
//! side by side whose steps are split as well. Memory is that of one batch per thread.

use stage::{Error, Kind, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, PoisonError};

/// Computes `work` of every batch on so many `threads` and hands each batch with its result to `take`, on the
/// calling thread, as soon as it is done: what one slow batch holds up could not be saved. Stops at the first error, and
/// between batches when a stop was asked for.
pub fn as_done<'b, B: Sync, R: Send>(
    batches: &'b [B],
    threads: usize,
    work: impl Fn(&'b B) -> Result<R> + Sync,
    mut take: impl FnMut(&'b B, R) -> Result<()>,
) -> Result<()> {
    let (next, work) = (AtomicUsize::new(0), &work);
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(threads.max(1));
        for _ in 0..threads.clamp(1, batches.len().max(1)) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                let failed = |e| Error::new(Kind::Unexpected, "cannot start a thread").because(e);
                // One thread per pool: whatever a batch would run in parallel stays on this core.
                match rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(failed) {
                    Ok(pool) => run(batches, next, |batch| pool.install(|| work(batch)), &sender),
                    Err(error) => drop(sender.send((0, Err(error)))),
                }
            });
        }
        drop(sender);
        // The receiver is dropped on return, so after an error the threads find nobody to send to and end.
        receiver.into_iter().try_for_each(|(i, result)| take(&batches[i], result?))
    })
}

/// So many threads may do one thing at the same time, the others wait.
///
/// ```
/// use dsom_features::parallel::Permits;
/// let permits = Permits::new(1);
/// let first = permits.acquire();
/// drop(first);
/// let _second = permits.acquire();
/// ```
pub struct Permits {
    left: Mutex<usize>,
    returned: Condvar,
}

impl Permits {
    /// `count` permits, at least one.
    pub fn new(count: usize) -> Self {
        Permits { left: Mutex::new(count.max(1)), returned: Condvar::new() }
    }

    /// Waits for a permit; it is returned when dropped.
    pub fn acquire(&self) -> Permit<'_> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left =
            self.returned.wait_while(left, |left| *left == 0).unwrap_or_else(PoisonError::into_inner);
        *left -= 1;
        Permit(self)
    }
}

/// See [`Permits::acquire`].
pub struct Permit<'a>(&'a Permits);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.left.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.returned.notify_one();
    }
}

/// Has the tensor library use one thread per operation; for the first line of `main`.
///
/// It offers no call for that. Of its environment variables this one bounds matrix products and element-wise steps
/// alike (and would pin threads of pools that we do not use to the first core).
#[expect(unsafe_code, reason = "changing the environment is unsafe while other threads run")]
pub fn one_thread_per_operation() {
    const VARIABLE: &str = "CANDLE_CPU_MASK";
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: `main` calls this first, so there is no other thread that could read the environment.
        unsafe { std::env::set_var(VARIABLE, "0") };
    }
}

type Numbered<R> = (usize, Result<R>);

fn run<'b, B, R>(
    batches: &'b [B],
    next: &AtomicUsize,
    work: impl Fn(&'b B) -> Result<R>,
    sender: &SyncSender<Numbered<R>>,
) {
    while let Some((i, batch)) = {
        let i = next.fetch_add(1, Ordering::Relaxed);
        batches.get(i).map(|batch| (i, batch))
    } {
        let result = stage::interrupt::check().and_then(|()| work(batch));
        let failed = result.is_err();
        if sender.send((i, result)).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_is_done_once_whatever_the_threads() {
        let batches: Vec<u64> = (0..50).collect();
        for threads in [1, 2, 7] {
            let mut seen = Vec::new();
            let work = |batch: &u64| {
                std::thread::sleep(std::time::Duration::from_micros(batch * 37 % 300));
                Ok(batch * 2)
            };
            as_done(&batches, threads, work, |batch, result| {
                seen.push(result - batch);
                Ok(())
            })
            .unwrap();
            seen.sort_unstable();
            assert_eq!(seen, batches);
        }
    }

    #[test]
    fn an_error_ends_all_threads() {
        let batches: Vec<u64> = (0..1000).collect();
        let work = |batch: &u64| if *batch == 9 { Err(Error::data("nine")) } else { Ok(*batch) };
        let error = as_done(&batches, 3, work, |_, _| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "nine");
        let error = as_done(&batches, 3, |batch| Ok(*batch), |_, _| Err(Error::data("full"))).unwrap_err();
        assert_eq!(error.to_string(), "full");
    }

    #[test]
    fn no_more_threads_than_permits_work_at_once() {
        let (permits, working) = (Permits::new(2), AtomicUsize::new(0));
        let batches: Vec<u64> = (0..40).collect();
        let work = |_: &u64| {
            let _permit = permits.acquire();
            let others = working.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(std::time::Duration::from_micros(200));
            working.fetch_sub(1, Ordering::SeqCst);
            Ok(others)
        };
        as_done(&batches, 6, work, |_, others| {
            assert!(others < 2);
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn nothing_to_do_is_done() {
        as_done(&[] as &[u64], 2, |batch| Ok(*batch), |_, _| Ok(())).unwrap();
    }
}
