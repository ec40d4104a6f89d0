//! Stopping when asked: SIGINT, SIGTERM and SIGUSR1, which batch systems send ahead of a time limit, set a flag that long loops look at between steps.

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::{Error, Kind, Result};

static REQUESTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Listens for SIGINT, SIGTERM and SIGUSR1: they ask for an orderly stop. A second SIGINT, from someone who cannot wait, ends
/// the process at once; batch systems send the others twice, and mean once.
pub fn listen() {
    // Registered first, so it sees the flag as it was before this signal set it.
    let code = i32::from(Kind::Interrupted.exit_code());
    let mut listening = signal_hook::flag::register_conditional_shutdown(SIGINT, code, REQUESTED.clone());
    for signal in [SIGINT, SIGTERM, SIGUSR1] {
        listening = listening.and_then(|_| signal_hook::flag::register(signal, REQUESTED.clone()));
    }
    if let Err(error) = listening {
        tracing::warn!("cannot listen for signals: {error}");
    }
}

/// An error of [`Kind::Interrupted`] once a stop was asked for; call it between steps, after a checkpoint.
pub fn check() -> Result<()> {
    if REQUESTED.load(Ordering::Relaxed) {
        return Err(
            Error::new(Kind::Interrupted, "stopped as asked").hint("run the same command again to continue")
        );
    }
    Ok(())
}

/// Does `work` in a thread that a signal leaves behind, to end with the process: for waiting that cannot be stopped.
pub fn until_stopped<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let worker = std::thread::spawn(work);
    while !worker.is_finished() {
        check()?;
        std::thread::sleep(Duration::from_millis(20));
    }
    worker.join().unwrap_or_else(|_| Err(Error::new(Kind::Unexpected, "the work in a thread panicked")))
}
