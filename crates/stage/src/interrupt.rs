//! Orderly stops. SIGINT, SIGTERM and SIGUSR1 (sent by batch systems before a time limit) set a flag for long loops.

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::{Error, Kind, Result};

static REQUESTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Listens for SIGINT, SIGTERM and SIGUSR1, which ask for an orderly stop. A second SIGINT comes from an impatient user
/// and ends the process at once. The other signals never do, because batch systems send them twice for one stop.
pub fn listen() {
    // This handler is registered first, so it sees the flag from before this signal.
    let code = i32::from(Kind::Interrupted.exit_code());
    let mut listening = signal_hook::flag::register_conditional_shutdown(SIGINT, code, REQUESTED.clone());
    for signal in [SIGINT, SIGTERM, SIGUSR1] {
        listening = listening.and_then(|_| signal_hook::flag::register(signal, REQUESTED.clone()));
    }
    if let Err(error) = listening {
        tracing::warn!("cannot listen for signals: {error}");
    }
}

/// Returns an error of [`Kind::Interrupted`] once a stop was requested; call it between steps, after a checkpoint.
pub fn check() -> Result<()> {
    if REQUESTED.load(Ordering::Relaxed) {
        return Err(
            Error::new(Kind::Interrupted, "stopped as asked").hint("run the same command again to continue")
        );
    }
    Ok(())
}

/// Runs `work`, which cannot be stopped, in a thread. A signal ends the wait; the thread then ends with the process.
pub fn until_stopped<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let worker = std::thread::spawn(work);
    while !worker.is_finished() {
        check()?;
        std::thread::sleep(Duration::from_millis(20));
    }
    worker.join().unwrap_or_else(|_| Err(Error::new(Kind::Unexpected, "the work in a thread panicked")))
}
