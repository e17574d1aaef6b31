//! Accepting over real loopback sockets, with a fixed origin.

use std::{cell::RefCell, rc::Rc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::{Builder, LocalOptions},
};

use super::*;

const SERVICE: &str = "10.96.0.1:80";
const GRACE: Duration = Duration::from_secs(5);

/// What a test has in hand while a listener accepts.
struct Rig {
    at: SocketAddr,
    gate: Gate,
    control: drain::Control,
    destinations: Rc<RefCell<Vec<OrigDst>>>,
    refused: Rc<RefCell<Vec<Refused>>>,
}

impl Rig {
    async fn dial(&self) -> TcpStream {
        TcpStream::connect(self.at).await.unwrap()
    }

    /// A connection whose story is known to run.
    async fn served(&self) -> TcpStream {
        let mut stream = self.dial().await;
        assert!(is_served(&mut stream).await);
        stream
    }
}

async fn is_served(stream: &mut TcpStream) -> bool {
    let mut byte = [7];
    stream.write_all(&byte).await.is_ok() && stream.read_exact(&mut byte).await.is_ok()
}

/// Accepts, echoing bytes, while `act` runs on the same worker; how many
/// connections were dropped in the end.
fn accepting<F, Act>(limit: usize, destination: Option<&str>, act: F) -> usize
where
    F: FnOnce(Rc<Rig>) -> Act,
    Act: Future<Output = ()>,
{
    let mut builder = Builder::new_current_thread();
    let runtime = builder
        .enable_all()
        .start_paused(true)
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        let socket =
            sock::listener("127.0.0.1:0".parse().unwrap(), &sock::Liveness::default()).unwrap();
        let at = socket.local_addr().unwrap();
        let (control, drain) = drain::channel();
        let rig = Rc::new(Rig {
            at,
            gate: Gate::new(limit),
            control,
            destinations: Rc::default(),
            refused: Rc::default(),
        });
        let map = destination.map(|to| (at.ip(), to.parse().unwrap()));
        let listener = Listener {
            socket,
            origin: Origin::Fixed(Arc::new(map.into_iter().collect())),
            gate: rig.gate.clone(),
            own_ports: Arc::new([15001, 15006, 15020]),
            grace: GRACE,
        };
        let told = Rc::clone(&rig);
        let story = move |arrival| echo(arrival, Rc::clone(&told));
        tokio::join!(listener.accept(story, drain), act(rig)).0
    })
}

async fn echo(arrival: Arrival, rig: Rc<Rig>) {
    match arrival {
        Arrival::Accepted(mut conn) => {
            rig.destinations.borrow_mut().push(conn.destination);
            let mut byte = [0];
            while conn.stream.read_exact(&mut byte).await.is_ok()
                && conn.stream.write_all(&byte).await.is_ok()
            {}
        }
        Arrival::Refused(why) => rig.refused.borrow_mut().push(why),
    }
}

#[test]
fn a_connection_arrives_with_its_destination() {
    accepting(10, Some(SERVICE), async |rig| {
        let _stream = rig.served().await;
        assert_eq!(
            *rig.destinations.borrow(),
            [OrigDst(SERVICE.parse().unwrap())]
        );
        rig.control.advance(Phase::Stopping);
    });
}

#[test]
fn a_connection_to_the_proxys_own_port_is_reset_and_told_by_name() {
    for own in [Some("127.0.0.1:15006"), Some("127.0.0.1:15020"), None] {
        accepting(10, own, async |rig| {
            let mut stream = rig.dial().await;
            assert!(!is_served(&mut stream).await);
            let [refused] = rig.refused.borrow()[..] else {
                panic!("not told")
            };
            assert_eq!(refused.reason, Reason::DirectConnection);
            assert_eq!(refused.peer.0, stream.local_addr().unwrap());
            rig.control.advance(Phase::Stopping);
        });
    }
}

#[test]
fn the_kernel_without_redirection_is_a_direct_connection() {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        let socket =
            sock::listener("127.0.0.1:0".parse().unwrap(), &sock::Liveness::default()).unwrap();
        let _client = TcpStream::connect(socket.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, peer) = socket.accept().await.unwrap();
        let listener = Listener {
            socket,
            origin: Origin::Kernel,
            gate: Gate::new(1),
            own_ports: Arc::new([]),
            grace: GRACE,
        };
        let Arrival::Refused(refused) = listener.arrival(stream, peer) else {
            panic!("accepted")
        };
        assert_eq!(refused.reason, Reason::DirectConnection);
    });
}

#[test]
fn over_the_limit_is_refused_by_name_until_somebody_leaves() {
    accepting(2, Some(SERVICE), async |rig| {
        let (first, _second) = (rig.served().await, rig.served().await);
        assert!(!is_served(&mut rig.dial().await).await);
        assert_eq!(rig.refused.borrow()[0].reason, Reason::TooManyConnections);
        assert_eq!(rig.gate.open(), 2);
        drop(first);
        while rig.gate.open() > 1 {
            tokio::task::yield_now().await;
        }
        rig.served().await;
        rig.control.advance(Phase::Stopping);
    });
}

#[test]
fn a_draining_proxy_accepts_and_a_stopping_one_finishes_what_it_has() {
    let dropped = accepting(10, Some(SERVICE), async |rig| {
        let mut early = rig.served().await;
        rig.control.advance(Phase::Draining);
        let mut late = rig.served().await;
        // Connected, in the kernel's queue, and not yet accepted.
        let mut queued = rig.dial().await;
        rig.control.advance(Phase::Stopping);
        assert!(is_served(&mut queued).await);
        assert!(TcpStream::connect(rig.at).await.is_err());
        assert!(is_served(&mut early).await && is_served(&mut late).await);
    });
    assert_eq!(dropped, 0);
}

#[test]
fn what_does_not_end_within_the_grace_period_is_dropped_and_counted() {
    let dropped = accepting(10, Some(SERVICE), async |rig| {
        let mut stream = rig.served().await;
        let since = tokio::time::Instant::now();
        rig.control.advance(Phase::Stopping);
        assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
        assert!(since.elapsed() >= GRACE);
    });
    assert_eq!(dropped, 1);
}

#[test]
fn without_descriptors_it_waits_longer_each_time_and_never_spins() {
    let full = io::Error::from(Errno::EMFILE);
    assert!(!is_of_one_connection(&full));
    assert!(is_of_one_connection(&Errno::ECONNABORTED.into()));
    let mut pause = Pause::default();
    let pauses: Vec<_> = (0..40).map(|_| pause.next(&full)).collect();
    assert_eq!(pauses[0], Pause::FIRST);
    assert!(pauses.is_sorted());
    assert_eq!(pauses[39], Pause::LONGEST);
}
