//! The foreground of `weft run`: joins the mesh, starts the program, passes
//! signals and the exit status on.
//!
//! One thread that waits for signals, for the holder and for the program at
//! once; before it comes argument parsing, after it `run::inside`. The order
//! at the end: program told to stop, at the same time its proxy told to drain;
//! program ends; proxy ends. Whatever ends the launcher ends the pod.

use std::{
    io::BufReader,
    os::{
        fd::AsFd,
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    process::{Child, ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::{Context, bail};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd, siginfo},
    },
    unistd::Pid,
};

use super::{
    Arguments, found,
    mesh::Mesh,
    own_stage,
    protocol::{self, Ask, Join, Place, Tell},
};

/// Passed on to the program. A terminal sends those that it makes to the
/// program itself; stopping and continuing concern the whole job.
const PASSED_ON: [Signal; 6] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Those that ask a program to stop.
const STOPS: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
];

/// For a program whose mesh is gone, between asking and killing.
const GRACE_WITHOUT_MESH: Duration = Duration::from_secs(5);

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mesh = Mesh::open(arguments.mesh.as_deref())?;
    let signals = Signals::new()?;
    let join = join(arguments)?;
    let mut pod = Pod::join(&mesh, arguments, &join)?;
    let place = match pod.prepare(&signals)? {
        Prepared::Place(place) => place,
        Prepared::Interrupted(signal) => return Ok(ended_by(signal)),
    };
    let program = start(arguments, &place)?;
    pod.say(&Ask::Started);
    let status = pod.accompany(&signals, program)?;
    pod.leave();
    Ok(code(status))
}

fn join(arguments: &Arguments) -> anyhow::Result<Join> {
    let absolute = |path: &Option<std::path::PathBuf>| -> anyhow::Result<_> {
        path.as_deref()
            .map(|path| std::path::absolute(path).with_context(|| path.display().to_string()))
            .transpose()
    };
    Ok(Join {
        build: protocol::build(),
        pod: arguments.pod.clone(),
        service_account: arguments.service_account.clone(),
        labels: arguments.labels.iter().cloned().collect(),
        mesh: !arguments.no_mesh,
        capture: absolute(&arguments.capture)?,
        manifests: absolute(&arguments.manifests)?,
        control_plane: arguments.control_plane.clone(),
        trust_domain: arguments.trust_domain.clone(),
        trust_bundle: absolute(&arguments.trust_bundle)?,
        token_file: absolute(&arguments.token_file)?,
    })
}

enum Prepared {
    Place(Place),
    Interrupted(Signal),
}

/// Our connection to the holder: the pod lives as long as it does.
struct Pod {
    stream: UnixStream,
    answers: BufReader<UnixStream>,
    /// An answer that came with the connection.
    first: Option<Tell>,
    drains: bool,
}

impl Pod {
    /// Joins the mesh, starting it where nobody did. A holder that is just
    /// ending hangs up without a word; then a new one is started.
    fn join(mesh: &Mesh, arguments: &Arguments, join: &Join) -> anyhow::Result<Self> {
        for _ in 0..5 {
            let mut stream = found::connect(mesh, arguments)?;
            let mut answers = BufReader::new(stream.try_clone()?);
            let answer = protocol::send(&mut stream, &Ask::Join(Box::new(join.clone())))
                .and_then(|()| protocol::receive::<Tell>(&mut answers));
            if let Ok(first) = answer {
                return Ok(Self {
                    stream,
                    answers,
                    first: Some(first),
                    drains: false,
                });
            }
        }
        bail!(
            "the mesh in {} ends again and again; see {}",
            mesh.directory().display(),
            mesh.log("holder").display()
        )
    }

    /// Waits until the pod has its network and its proxy is ready.
    fn prepare(&mut self, signals: &Signals) -> anyhow::Result<Prepared> {
        let mut said = String::new();
        loop {
            let answer = match self.first.take() {
                Some(first) => first,
                None => {
                    let came = wait(signals, Some(&self.answers), None)?;
                    if let Some(signal) = came.signals.iter().find(|it| STOPS.contains(&it.signal))
                    {
                        return Ok(Prepared::Interrupted(signal.signal));
                    }
                    if !came.holder {
                        continue;
                    }
                    protocol::receive(&mut self.answers)
                        .context("the holder of the mesh has ended")?
                }
            };
            match answer {
                Tell::Ready(place) => return Ok(Prepared::Place(place)),
                Tell::Refused(reason) => bail!("{reason}"),
                Tell::Waiting(what) if what != said => {
                    note(&what);
                    said = what;
                }
                Tell::Waiting(_) | Tell::Mapped | Tell::Gone => {}
            }
        }
    }

    /// Until the program has ended.
    fn accompany(&mut self, signals: &Signals, mut program: Child) -> anyhow::Result<ExitStatus> {
        let pid = Pid::from_raw(i32::try_from(program.id()).context("process id")?);
        let mut has_holder = true;
        let mut patience = None;
        loop {
            if let Some(status) = program.try_wait()? {
                return Ok(status);
            }
            let came = wait(signals, has_holder.then_some(&self.answers), patience)?;
            for received in came.signals {
                // The terminal sent its own to the whole foreground job already.
                if !received.from_terminal {
                    pass_on(pid, received.signal);
                    if STOPS.contains(&received.signal) {
                        self.drain();
                    }
                }
            }
            if came.holder {
                match protocol::receive::<Tell>(&mut self.answers) {
                    Ok(Tell::Waiting(what)) => note(&what),
                    Ok(_) => {}
                    Err(_) => {
                        note("the holder of the mesh has ended, so the program is stopped");
                        pass_on(pid, Signal::SIGTERM);
                        has_holder = false;
                        patience = Some(GRACE_WITHOUT_MESH);
                    }
                }
            } else if came.nothing && patience.take().is_some() {
                pass_on(pid, Signal::SIGKILL);
            }
        }
    }

    fn drain(&mut self) {
        if !std::mem::replace(&mut self.drains, true) {
            self.say(&Ask::Draining);
        }
    }

    /// A holder that has gone is noticed where we listen to it.
    fn say(&mut self, what: &Ask) {
        let _ = protocol::send(&mut self.stream, what);
    }

    /// Waits until nothing of the pod is left.
    fn leave(&mut self) {
        self.say(&Ask::Ended);
        while let Ok(answer) = protocol::receive::<Tell>(&mut self.answers) {
            match answer {
                Tell::Gone => return,
                Tell::Waiting(what) => note(&what),
                _ => {}
            }
        }
    }
}

fn start(arguments: &Arguments, place: &Place) -> anyhow::Result<Child> {
    let mut stage = own_stage("program");
    stage.args(["--parent", &std::process::id().to_string()]);
    for (name, path) in [
        ("--user-namespace", &place.user_namespace),
        ("--network-namespace", &place.network_namespace),
        ("--hosts", &place.hosts),
        ("--holder", &place.holder),
    ] {
        stage.arg(name).arg(path);
    }
    stage
        .args(["--hostname", &place.hostname, "--"])
        .args(&arguments.command);
    stage.spawn().context("starting the program")
}

/// A program that has just ended needs no signal.
fn pass_on(program: Pid, signal: Signal) {
    if let Err(error) = kill(program, signal)
        && error != Errno::ESRCH
    {
        note(&format!("{signal} not passed on: {error}"));
    }
}

/// What the launcher hears instead of being ended by.
pub(crate) fn signals() -> SigSet {
    let mut set: SigSet = PASSED_ON.into_iter().collect();
    set.add(Signal::SIGCHLD);
    set
}

struct Received {
    signal: Signal,
    from_terminal: bool,
}

impl Received {
    fn new(information: &siginfo) -> Option<Self> {
        let signal = i32::try_from(information.ssi_signo)
            .ok()
            .and_then(|number| Signal::try_from(number).ok())?;
        // SI_KERNEL: no process sent it.
        Some(Self {
            signal,
            from_terminal: information.ssi_code == nix::libc::SI_KERNEL,
        })
    }
}

/// Our signals as something to wait for.
struct Signals(SignalFd);

impl Signals {
    /// From here on they no longer end the launcher.
    fn new() -> anyhow::Result<Self> {
        let set = signals();
        set.thread_block()?;
        Ok(Self(SignalFd::with_flags(
            &set,
            SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
        )?))
    }

    fn take(&self) -> anyhow::Result<Vec<Received>> {
        let mut all = Vec::new();
        while let Some(information) = self.0.read_signal()? {
            all.extend(Received::new(&information).filter(|it| it.signal != Signal::SIGCHLD));
        }
        Ok(all)
    }
}

struct Came {
    signals: Vec<Received>,
    /// The holder said something, or has gone.
    holder: bool,
    /// The time is over.
    nothing: bool,
}

fn wait(
    signals: &Signals,
    holder: Option<&BufReader<UnixStream>>,
    patience: Option<Duration>,
) -> anyhow::Result<Came> {
    if holder.is_some_and(|holder| !holder.buffer().is_empty()) {
        return Ok(Came {
            signals: signals.take()?,
            holder: true,
            nothing: false,
        });
    }
    let mut sources = vec![PollFd::new(signals.0.as_fd(), PollFlags::POLLIN)];
    sources.extend(holder.map(|holder| PollFd::new(holder.get_ref().as_fd(), PollFlags::POLLIN)));
    let timeout = patience.map_or(PollTimeout::NONE, |patience| {
        PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX)
    });
    let ready = loop {
        match poll(&mut sources, timeout) {
            Err(Errno::EINTR) => {}
            answer => break answer?,
        }
    };
    let holder = sources.get(1).and_then(PollFd::any).unwrap_or_default();
    Ok(Came {
        signals: signals.take()?,
        holder,
        nothing: ready == 0,
    })
}

fn code(status: ExitStatus) -> ExitCode {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        (None, signal) => ExitCode::from(
            128 + signal
                .and_then(|it| u8::try_from(it).ok())
                .unwrap_or_default(),
        ),
    }
}

fn ended_by(signal: Signal) -> ExitCode {
    ExitCode::from(128 + u8::try_from(signal as i32).unwrap_or_default())
}

#[allow(
    clippy::print_stderr,
    reason = "a command line answers on its standard error"
)]
fn note(what: &str) {
    eprintln!("weft: {what}");
}
