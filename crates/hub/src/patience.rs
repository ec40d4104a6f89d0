//! Trying again: what may pass is tried again after a pause, a few times without success; what will not is an error.

use stage::{Error, Result};
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

/// Failures in a row after which it is given up.
const TRIES: u32 = 6;
/// No pause is longer, whatever the server asks for.
const LONGEST: Duration = Duration::from_secs(60);
/// How soon a signal is noticed.
const TICK: Duration = Duration::from_millis(100);

/// Why an attempt did not succeed.
pub(crate) enum Failure {
    /// It never will.
    Final(Error),
    /// It may; not before the pause that the server asked for.
    Again { error: Error, after: Option<Duration> },
}

impl Failure {
    /// It may succeed the next time.
    pub(crate) fn again(error: Error) -> Self {
        Failure::Again { error, after: None }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Final(error)
    }
}

/// Counts failures in a row.
pub(crate) struct Patience {
    first: Duration,
    failures: u32,
}

impl Patience {
    /// With this first pause; each further one is twice as long.
    pub(crate) fn new(first: Duration) -> Self {
        Patience { first, failures: 0 }
    }

    /// Begins to count anew: something was achieved.
    pub(crate) fn restore(&mut self) {
        self.failures = 0;
    }

    /// Waits until it may be tried again; the error where it may not.
    pub(crate) async fn bear(&mut self, failure: Failure) -> Result<()> {
        match failure {
            Failure::Final(error) => Err(error),
            Failure::Again { error, after } => {
                let pause = self.pause(after);
                self.failures += 1;
                if self.failures == TRIES {
                    return Err(error);
                }
                tracing::warn!("{error}; trying again in {:.1} s", pause.as_secs_f32());
                tokio::time::sleep(pause).await;
                Ok(())
            }
        }
    }

    fn pause(&self, after: Option<Duration>) -> Duration {
        after.unwrap_or(Duration::ZERO).max(self.first * 2_u32.pow(self.failures)).min(LONGEST)
    }
}

/// Attempts until one succeeds, or patience ends.
pub(crate) async fn patiently<T>(
    mut patience: Patience,
    mut attempt: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<T> {
    loop {
        match attempt().await {
            Ok(success) => return Ok(success),
            Err(failure) => patience.bear(failure).await?,
        }
    }
}

/// Does `work`, and drops it where it waits for something when the process is asked to stop.
pub(crate) async fn unless_stopped<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = pin!(work);
    loop {
        stage::interrupt::check()?;
        if let Ok(result) = tokio::time::timeout(TICK, work.as_mut()).await {
            return result;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_are_no_shorter_than_asked_for() {
        let seconds = Duration::from_secs;
        let pause = |failures, after| Patience { first: seconds(1), failures }.pause(after);
        assert_eq!([0, 1, 5].map(|failures| pause(failures, None)), [1, 2, 32].map(seconds));
        assert_eq!(pause(0, Some(seconds(10))), seconds(10));
        assert_eq!(pause(2, Some(seconds(0))), seconds(4));
        assert_eq!(pause(0, Some(seconds(3600))), LONGEST);
    }
}
