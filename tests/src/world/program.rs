//! A program that a test has started: its output as it comes, and its end.
//!
//! Under `world`, which says where it runs. Waiting for a line wakes when the
//! line comes. It is killed when it is dropped.

use std::{
    fmt,
    io::Read,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::Instant;

use crate::wait::{self, PATIENCE};

/// A started program.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Arc<Output>,
    stderr: Arc<Output>,
}

/// A program that has ended, and all that it said.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Finished {
    #[must_use]
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// What it said, when all went well for it.
    ///
    /// # Panics
    /// When it failed, with its complaint.
    #[must_use]
    #[track_caller]
    pub fn success(self) -> String {
        assert!(
            self.status.success(),
            "{}: {}{}",
            self.status,
            self.stdout(),
            self.stderr()
        );
        self.stdout()
    }
}

impl Program {
    /// Starts it with all three streams caught. `name` is for messages.
    #[must_use]
    #[track_caller]
    pub fn start(name: &str, mut command: Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let stdout = Output::of(child.stdout.take());
        let stderr = Output::of(child.stderr.take());
        Self {
            name: name.to_owned(),
            stdin: child.stdin.take(),
            child,
            stdout,
            stderr,
        }
    }

    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("process ids fit"))
    }

    /// Its standard input; dropping it closes it.
    ///
    /// # Panics
    /// The second time.
    #[must_use]
    pub fn stdin(&mut self) -> ChildStdin {
        self.stdin.take().expect("taken once")
    }

    /// What it has said on standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Until `text` is in its standard output.
    #[track_caller]
    pub fn says(&self, text: &str) {
        if !self.stdout.contains(text) {
            self.silent(text);
        }
    }

    /// Until `text` is in its standard error.
    #[track_caller]
    pub fn complains(&self, text: &str) {
        if !self.stderr.contains(text) {
            self.silent(text);
        }
    }

    #[track_caller]
    fn silent(&self, text: &str) -> ! {
        panic!(
            "{} never said {text:?} but {}{}",
            self.name,
            self.stdout(),
            self.stderr()
        )
    }

    pub fn signal(&self, signal: Signal) {
        // It may have just ended.
        let _ = kill(self.pid(), signal);
    }

    #[must_use]
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end, for [`PATIENCE`].
    #[must_use]
    #[track_caller]
    pub fn finished(self) -> Finished {
        self.finished_within(PATIENCE)
    }

    /// Waits for its end. Its standard input is closed.
    ///
    /// # Panics
    /// When it doesn't end in time, with what it said.
    #[must_use]
    #[track_caller]
    pub fn finished_within(mut self, patience: Duration) -> Finished {
        drop(self.stdin.take());
        let status = wait::within(patience, || self.child.try_wait().ok().flatten());
        let Some(status) = status else {
            let (out, complaint) = (self.stdout(), self.stderr());
            panic!(
                "{} still runs after {patience:?}: {out}{complaint}",
                self.name
            )
        };
        Finished {
            status,
            stdout: self.stdout.whole(),
            stderr: self.stderr.whole(),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes of a stream as they come.
struct Output {
    said: Mutex<Said>,
    grown: Condvar,
}

#[derive(Default)]
struct Said {
    bytes: Vec<u8>,
    ended: bool,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl Output {
    fn of(stream: Option<impl Read + Send + 'static>) -> Arc<Self> {
        let output = Arc::new(Self {
            said: Mutex::default(),
            grown: Condvar::new(),
        });
        if let Some(stream) = stream {
            let to = Arc::clone(&output);
            thread::spawn(move || to.read(stream));
        }
        output
    }

    fn read(&self, mut stream: impl Read) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = stream.read(&mut buffer).unwrap_or_default();
            let mut said = self.said();
            said.bytes.extend(buffer.get(..read).unwrap_or_default());
            said.ended = read == 0;
            self.grown.notify_all();
            if read == 0 {
                return;
            }
        }
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().expect("no reader panics")
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.said().bytes).into_owned()
    }

    fn contains(&self, text: &str) -> bool {
        let found = |said: &Said| {
            said.bytes
                .windows(text.len())
                .any(|it| it == text.as_bytes())
        };
        let said = self.until(|said| said.ended || found(said));
        found(&said)
    }

    /// All of it; a child that kept the stream open can't hold this up.
    fn whole(&self) -> Vec<u8> {
        std::mem::take(&mut self.until(|said| said.ended).bytes)
    }

    fn until(&self, enough: impl Fn(&Said) -> bool) -> MutexGuard<'_, Said> {
        let end = Instant::now() + PATIENCE;
        let mut said = self.said();
        while !enough(&said) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            said = self
                .grown
                .wait_timeout(said, left)
                .expect("no reader panics")
                .0;
        }
        said
    }
}
