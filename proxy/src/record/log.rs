//! The access log: lines handed to a thread of their own.
//!
//! `record` asks whether a line is wanted and hands it over. A full queue
//! drops the line and counts it: the path never waits for a disk or a pipe.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, SyncSender},
    },
    thread,
};

use prometheus_client::metrics::counter::Counter;

use crate::{clock::Epoch, telemetry::Registry};

/// Which requests and connections get a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Off,
    /// Faults, 5xx, failed gRPC calls and callers that left.
    Errors,
    All,
}

/// So many lines wait for the writer.
const QUEUE: usize = 1024;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct AccessLog {
    mode: Mode,
    lines: Option<SyncSender<Vec<u8>>>,
    rate: Arc<Rate>,
    dropped: Counter,
    suppressed: Counter,
}

impl AccessLog {
    /// Writes lines to `out` from a new thread, which ends with the last clone.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start<W: Write + Send + 'static>(
        registry: &mut Registry,
        mode: Mode,
        per_second: u32,
        out: W,
    ) -> io::Result<Self> {
        let mut area = registry.area("access_log");
        let dropped = area.register(
            "dropped_lines",
            "Lines lost because the writer was slower than the traffic",
            Counter::default(),
        );
        let suppressed = area.register(
            "suppressed_lines",
            "Lines left out by WEFT_ACCESS_LOG_PER_SECOND",
            Counter::default(),
        );
        let lines = match mode {
            Mode::Off => None,
            Mode::Errors | Mode::All => Some(writer(out)?),
        };
        let rate = Arc::new(Rate {
            epoch: Epoch::start(),
            per_second,
            window: AtomicU64::new(0),
        });
        Ok(Self {
            mode,
            lines,
            rate,
            dropped,
            suppressed,
        })
    }

    pub(crate) fn is_off(&self) -> bool {
        self.mode == Mode::Off
    }

    /// Should a line be rendered and written?
    pub(super) fn wants(&self, is_error: bool) -> bool {
        match self.mode {
            Mode::Off => false,
            Mode::All => true,
            Mode::Errors if !is_error => false,
            Mode::Errors if self.rate.admits(tokio::time::Instant::now()) => true,
            Mode::Errors => {
                self.suppressed.inc();
                false
            }
        }
    }

    pub(super) fn write(&self, line: Vec<u8>) {
        if let Some(lines) = &self.lines
            && lines.try_send(line).is_err()
        {
            self.dropped.inc();
        }
    }
}

fn writer<W: Write + Send + 'static>(mut out: W) -> io::Result<SyncSender<Vec<u8>>> {
    let (sender, lines) = mpsc::sync_channel::<Vec<u8>>(QUEUE);
    thread::Builder::new()
        .name("access-log".into())
        .spawn(move || {
            while let Ok(line) = lines.recv() {
                let mut more = Some(line);
                // One flush for all that waits.
                while let Some(line) = more {
                    if out.write_all(&line).is_err() {
                        return;
                    }
                    more = lines.try_recv().ok();
                }
                if out.flush().is_err() {
                    return;
                }
            }
        })?;
    Ok(sender)
}

/// At most `per_second` in each second. The window holds the second in its
/// upper half and the count in its lower.
#[derive(Debug)]
struct Rate {
    epoch: Epoch,
    per_second: u32,
    window: AtomicU64,
}

impl Rate {
    fn admits(&self, now: tokio::time::Instant) -> bool {
        let second = self.epoch.milliseconds(now) / 1000;
        let start = second << 32;
        let next = |window: u64| {
            let window = if window >> 32 == second & u64::from(u32::MAX) {
                window
            } else {
                start
            };
            (window & u64::from(u32::MAX) < u64::from(self.per_second)).then_some(window + 1)
        };
        self.window
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .is_ok()
    }
}
