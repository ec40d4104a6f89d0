//! Seconds that pass, and seconds that the cores work for this program.

use std::time::Instant;

pub(crate) struct Clock {
    started: Instant,
    worked: f64,
}

impl Clock {
    pub(crate) fn now() -> Self {
        Clock { started: Instant::now(), worked: worked() }
    }

    /// Both since then; of the cores together.
    pub(crate) fn elapsed(&self) -> (f64, f64) {
        (self.started.elapsed().as_secs_f64(), worked() - self.worked)
    }
}

/// Seconds of all threads of this program, as the system counts them.
#[expect(unsafe_code, reason = "the standard library does not know this clock")]
fn worked() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one `timespec`.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "the clock of this process");
    time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64
}
