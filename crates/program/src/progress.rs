//! The log and the progress of long work: a bar with the time left on a terminal, otherwise a log line now and then.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use stage::resources::human;

use crate::printable::printable_log;

/// Seconds between log lines about the same work, without a terminal.
const LOG_INTERVAL: u64 = 20;

static BARS: OnceLock<MultiProgress> = OnceLock::new();

/// Sends log lines to standard error, at a level from `-q` (negative) to `-vv`; `RUST_LOG` overrides it. Draws bars
/// only on a terminal and without `-q`; uses colours only on a terminal and without `NO_COLOR`.
pub fn init_logging(verbosity: i8) {
    let level = match verbosity {
        i8::MIN..=-2 => "error",
        -1 => "warn",
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    let is_terminal = std::io::stderr().is_terminal();
    if is_terminal && verbosity >= 0 {
        BARS.get_or_init(MultiProgress::new);
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let is_coloured = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = Lines { is_timed: !is_terminal || verbosity > 0 };
    // A failed write of the log, on a full disk or to a closed reader, does not stop the program.
    let log = tracing_subscriber::fmt().log_internal_errors(false).with_ansi(is_coloured);
    let log = log.with_env_filter(filter).event_format(lines).with_writer(|| AboveBars);
    // A second call in one process (tests do that) keeps the first logger.
    let _ = log.try_init();
}

/// Log lines for people: `error: …`, `warning: …`, and news without a word in front.
struct Lines {
    /// True if each line begins with its time: in a log file, and with `-v`.
    is_timed: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        if self.is_timed {
            SystemTime.format_time(&mut writer)?;
            writer.write_char(' ')?;
        }
        let (word, colour) = match *event.metadata().level() {
            Level::ERROR => ("error: ", "31;1"),
            Level::WARN => ("warning: ", "33;1"),
            Level::INFO => ("", ""),
            Level::DEBUG | Level::TRACE => ("debug: ", "2"),
        };
        if writer.has_ansi_escapes() && !word.is_empty() {
            write!(writer, "\x1b[{colour}m{word}\x1b[0m")?;
        } else {
            writer.write_str(word)?;
        }
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Writes log lines above the bars, not through them.
struct AboveBars;

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        let write = || std::io::stderr().write_all(printable_log(&line).as_bytes());
        match BARS.get() {
            Some(bars) => bars.suspend(write)?,
            None => write()?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// Counts `total` units of work under a title.
pub struct Progress {
    title: String,
    total: u64,
    /// Formats a count for log lines.
    written: fn(u64) -> String,
    done: AtomicU64,
    /// The count at which resumed work began.
    first: AtomicU64,
    started: Instant,
    /// Seconds from the beginning to the last log line.
    last_line: AtomicU64,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins to count units; `unit` is their plural (`"epochs"`, `"queries"`).
    pub fn new(title: impl Into<String>, total: impl TryInto<u64>, unit: &str) -> Self {
        Progress::with(title.into(), count(total), &format!("{{pos}}/{{len}} {unit} {{msg}}"), |n| {
            n.to_string()
        })
    }

    /// Begins to count bytes; shows KiB, MiB and so on, with the rate.
    pub fn of_bytes(title: impl Into<String>, total: u64) -> Self {
        let counted = "{binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
        Progress::with(title.into(), total, counted, human)
    }

    fn with(title: String, total: u64, counted: &str, written: fn(u64) -> String) -> Self {
        let bar = BARS.get().map(|bars| {
            let template = format!("{{prefix:>22}} {{wide_bar}} {counted} {{eta}} left");
            let style =
                ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bars.add(ProgressBar::new(total).with_style(style).with_prefix(title.clone()))
        });
        Progress {
            title,
            total,
            written,
            done: AtomicU64::new(0),
            first: AtomicU64::new(0),
            started: Instant::now(),
            last_line: AtomicU64::new(0),
            bar,
        }
    }

    /// Sets the count at which resumed work begins.
    pub fn start_at(&self, done: impl TryInto<u64>) {
        let done = count(done);
        self.done.store(done, Ordering::Relaxed);
        self.first.store(done, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.reset_eta();
        }
    }

    /// Counts `n` more units.
    pub fn advance(&self, n: impl TryInto<u64>) {
        let n = count(n);
        let done = self.done.fetch_add(n, Ordering::Relaxed) + n;
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None => self.log_now_and_then(done),
        }
    }

    /// Shows `message` beside the count.
    pub fn message(&self, message: impl Into<String>) {
        if let Some(bar) = &self.bar {
            bar.set_message(message.into());
        }
    }

    fn log_now_and_then(&self, done: u64) {
        let now = self.started.elapsed().as_secs();
        let last = self.last_line.load(Ordering::Relaxed);
        let due = now >= last + LOG_INTERVAL && done < self.total;
        if due && self.last_line.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let counted = done - self.first.load(Ordering::Relaxed);
            let left = now.saturating_mul(self.total - done) / counted.max(1);
            let (done, total) = ((self.written)(done), (self.written)(self.total));
            tracing::info!("{}: {done} of {total}, about {left} s left", self.title);
        }
    }
}

fn count(n: impl TryInto<u64>) -> u64 {
    n.try_into().unwrap_or(u64::MAX)
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
