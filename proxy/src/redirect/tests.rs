//! The rules against the kernel, in network namespaces of their own: each row
//! of the table is a real connection. Needs root; says so when it is not.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    process::Command as Process,
    thread,
    time::Duration,
};

use nix::{
    sched::{CloneFlags, setns, unshare},
    unistd::{Uid, setfsuid},
};
use socket2::{Domain, Protocol, Socket, Type};

use super::*;
use crate::sock::{self, Liveness, Source};

const APPLICATION: u32 = 1000;
const PROXY: u32 = 2102;

fn rules(own: Own) -> Rules {
    Rules {
        outbound_port: 15001,
        inbound_port: 15006,
        proxy_ports: vec![15020, 15021],
        own,
        exclude_outbound_ports: vec![3306],
        exclude_outbound_ranges: vec![
            "10.9.9.0/24".parse().unwrap(),
            "fd09:9::/33".parse().unwrap(),
        ],
        exclude_inbound_ports: vec![9000, 9001],
    }
}

/// Says so past the test's captured output.
fn skipped(why: &str) {
    let _unheard = writeln!(io::stderr(), "SKIPPED: {why}");
}

/// Runs `test` on a thread in a new network namespace with `lo` up.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    if !Uid::effective().is_root() {
        skipped("needs root to make network namespaces");
        return;
    }
    let ended = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        run("ip", "link set lo up");
        test();
    })
    .join();
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a program in this thread's namespaces; what it printed.
fn run(program: &str, arguments: &str) -> String {
    let output = Process::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A pod with addresses of both families, and a peer beyond a wire. The test's
/// thread is in the pod.
struct Pod {
    peer: std::fs::File,
    home: std::fs::File,
}

const POD: [&str; 2] = ["10.1.0.2", "fd01::2"];
const PEER: [&str; 2] = ["10.1.0.1", "fd01::1"];

impl Pod {
    fn new() -> Self {
        let namespace = || std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        let home = namespace();
        let peer = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            run("ip", "link set lo up");
            namespace()
        });
        let peer = peer.join().unwrap();
        let pod = Self { peer, home };
        run("ip", "link add eth0 type veth peer name wire");

        run(
            "ip",
            &format!(
                "link set wire netns /proc/{}/fd/{}",
                std::process::id(),
                pod.peer.as_raw_fd()
            ),
        );
        for (address, length) in POD.iter().zip([24, 64]) {
            run("ip", &format!("addr add {address}/{length} dev eth0 nodad"));
        }
        run("ip", "link set eth0 up");
        pod.in_peer(|| {
            run("ip", "link set wire up");
            for (address, length) in PEER.iter().zip([24, 64]) {
                run("ip", &format!("addr add {address}/{length} dev wire nodad"));
            }
        });
        for gateway in PEER {
            run("ip", &format!("route add default via {gateway}"));
        }
        pod
    }

    fn in_peer<T>(&self, act: impl FnOnce() -> T) -> T {
        setns(&self.peer, CloneFlags::CLONE_NEWNET).unwrap();
        let result = act();
        setns(&self.home, CloneFlags::CLONE_NEWNET).unwrap();
        result
    }
}

/// Opens a connection as `uid`, with what the proxy may set on it.
fn dial(
    uid: u32,
    to: SocketAddr,
    from: Option<IpAddr>,
    mark: Option<u32>,
) -> io::Result<TcpStream> {
    setfsuid(Uid::from_raw(uid));
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).unwrap();
    setfsuid(Uid::from_raw(0));
    if let Some(mark) = mark {
        socket.set_mark(mark).unwrap();
    }
    if let Some(from) = from {
        socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    }
    socket.connect_timeout(&to.into(), Duration::from_secs(2))?;
    Ok(socket.into())
}

/// Which listener a connection reached, and where it was going.
#[derive(Debug, PartialEq, Eq)]
enum Reached {
    Outbound(SocketAddr),
    Inbound(SocketAddr),
    /// It was left alone.
    Itself,
}

/// The proxy's listeners, beside the one where a connection goes if left alone.
struct Ends {
    runtime: tokio::runtime::Runtime,
    outbound: tokio::net::TcpListener,
    inbound: tokio::net::TcpListener,
}

impl Ends {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let listen = async |port| sock::listener(at("::", port), &Liveness::default()).unwrap();
        let (outbound, inbound) =
            runtime.block_on(async { (listen(15001).await, listen(15006).await) });
        Self {
            runtime,
            outbound,
            inbound,
        }
    }

    /// Opens a connection to `to`, where someone listens, and finds where it arrives.
    fn follow<S>(&self, to: SocketAddr, dial: impl AsyncFnOnce() -> io::Result<S>) -> Reached {
        self.runtime.block_on(async {
            let itself = tokio::net::TcpListener::bind(to).await.ok();
            let _opened = dial().await.unwrap_or_else(|error| panic!("{to}: {error}"));
            let left_alone = async {
                match &itself {
                    Some(listener) => listener.accept().await.unwrap().1,
                    None => std::future::pending().await,
                }
            };
            let arrival = async {
                tokio::select! {
                    accepted = self.outbound.accept() => Reached::Outbound(original(&accepted.unwrap().0)),
                    accepted = self.inbound.accept() => Reached::Inbound(original(&accepted.unwrap().0)),
                    _ = left_alone => Reached::Itself,
                }
            };
            tokio::time::timeout(Duration::from_secs(5), arrival).await.unwrap_or_else(|_| panic!("{to}: reached nobody"))
        })
    }
}

fn original(accepted: &tokio::net::TcpStream) -> SocketAddr {
    sock::original_destination(accepted).unwrap().0
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

const FAMILIES: [usize; 2] = [0, 1];
const LOOPBACK: [&str; 2] = ["127.0.0.1", "::1"];
const INBOUND: [&str; 2] = ["127.0.0.6", "::6"];
/// Where nobody is: only a redirected connection is accepted.
const SERVICE: [&str; 2] = ["10.96.0.1", "fd96::1"];
const EXCLUDED: [&str; 2] = ["10.9.9.9", "fd09:9::9"];

#[test]
fn what_the_application_opens_goes_to_the_outbound_port() {
    in_namespace(|| {
        let _pod = Pod::new();
        install(&rules(Own::Uid(PROXY))).unwrap();
        let ends = Ends::new();
        for family in FAMILIES {
            for (to, port) in [
                (SERVICE[family], 80),
                (PEER[family], 8080),
                (PEER[family], 15001),
            ] {
                let to = at(to, port);
                assert_eq!(
                    ends.follow(to, async || dial(APPLICATION, to, None, None)),
                    Reached::Outbound(to)
                );
            }
        }
    });
}

#[test]
fn the_applications_own_loopback_traffic_is_left_alone() {
    in_namespace(|| {
        let _pod = Pod::new();
        install(&rules(Own::Uid(PROXY))).unwrap();
        let ends = Ends::new();
        for family in FAMILIES {
            for to in [LOOPBACK[family], POD[family]] {
                let to = at(to, 8080);
                assert_eq!(
                    ends.follow(to, async || dial(APPLICATION, to, None, None)),
                    Reached::Itself,
                    "{to}"
                );
            }
        }
    });
}

#[test]
fn a_proxy_that_picks_its_own_pod_meets_the_inbound_port() {
    in_namespace(|| {
        let _pod = Pod::new();
        install(&rules(Own::Uid(PROXY))).unwrap();
        let ends = Ends::new();
        for family in FAMILIES {
            let to = at(POD[family], 8080);
            assert_eq!(
                ends.follow(to, async || dial(PROXY, to, None, None)),
                Reached::Inbound(to)
            );
            let inbound = Some(INBOUND[family].parse().unwrap());
            assert_eq!(
                ends.follow(to, async || dial(PROXY, to, inbound, None)),
                Reached::Itself,
                "from {inbound:?}"
            );
            let to = at(LOOPBACK[family], 8080);
            assert_eq!(
                ends.follow(to, async || dial(PROXY, to, None, None)),
                Reached::Itself,
                "{to}"
            );
            for unmeshed in [9000, 9001, 15020, 15021] {
                let to = at(POD[family], unmeshed);
                assert_eq!(
                    ends.follow(to, async || dial(PROXY, to, None, None)),
                    Reached::Itself,
                    "{to}"
                );
            }
        }
    });
}

#[test]
fn what_the_proxy_opens_and_what_is_excluded_leaves_as_it_is() {
    in_namespace(|| {
        let pod = Pod::new();
        install(&rules(Own::Uid(PROXY))).unwrap();
        let mut beyond = Vec::new();
        pod.in_peer(|| {
            for family in FAMILIES {
                run("ip", &format!("addr add {} dev lo nodad", EXCLUDED[family]));
                for (address, port) in [
                    (PEER[family], 8080),
                    (PEER[family], 3306),
                    (EXCLUDED[family], 80),
                ] {
                    beyond.push(TcpListener::bind(at(address, port)).unwrap());
                }
            }
        });
        for listener in &beyond {
            let to = listener.local_addr().unwrap();
            let opener = if to.port() == 8080 {
                PROXY
            } else {
                APPLICATION
            };
            let opened = dial(opener, to, None, None).unwrap();
            let accepted = listener.accept().unwrap().1;
            assert_eq!(opened.local_addr().unwrap(), accepted, "{to}");
        }
    });
}

#[test]
fn what_arrives_goes_to_the_inbound_port_except_where_excluded() {
    in_namespace(|| {
        let pod = Pod::new();
        install(&rules(Own::Uid(PROXY))).unwrap();
        let ends = Ends::new();
        for family in FAMILIES {
            for meshed in [80, 8080, 15022, 15099] {
                let to = at(POD[family], meshed);
                let reached = ends.follow(to, async || pod.in_peer(|| dial(0, to, None, None)));
                assert_eq!(reached, Reached::Inbound(to));
            }
            for unmeshed in [9000, 9001, 15020, 15021] {
                let to = at(POD[family], unmeshed);
                let reached = ends.follow(to, async || pod.in_peer(|| dial(0, to, None, None)));
                assert_eq!(reached, Reached::Itself, "{to}");
            }
            // Straight to a listener, which can tell: it was going to itself.
            let to = at(POD[family], 15006);
            assert_eq!(
                ends.follow(to, async || pod.in_peer(|| dial(0, to, None, None))),
                Reached::Inbound(to)
            );
            let to = at(POD[family], 15001);
            assert_eq!(
                ends.follow(to, async || pod.in_peer(|| dial(0, to, None, None))),
                Reached::Outbound(to)
            );
        }
    });
}

#[test]
fn a_hundred_installations_are_the_same_as_one() {
    in_namespace(|| {
        run("nft", "add table inet other");
        install(&rules(Own::Uid(PROXY))).unwrap();
        let once = run("nft", "list ruleset");
        let addresses = run("ip", "-6 addr show dev lo");
        assert!(addresses.contains("inet6 ::6/128"), "{addresses}");
        for _ in 1..100 {
            install(&rules(Own::Uid(PROXY))).unwrap();
        }
        assert_eq!(run("nft", "list ruleset"), once);
        assert_eq!(run("ip", "-6 addr show dev lo"), addresses);
        // nft's versions differ in how they print a base chain's priority.
        let shown: String = once
            .split_inclusive('\n')
            .filter(|line| !line.contains("type nat hook"))
            .collect();
        assert_eq!(shown, include_str!("tests/ruleset.nft"));
    });
}

#[test]
fn removal_leaves_what_was_there_before_and_may_be_repeated() {
    in_namespace(|| {
        run("nft", "add table inet other");
        let before = run("nft", "list ruleset");
        let addresses = run("ip", "addr show dev lo");
        remove().unwrap();
        install(&rules(Own::Mark(7))).unwrap();
        remove().unwrap();
        remove().unwrap();
        assert_eq!(run("nft", "list ruleset"), before);
        assert_eq!(run("ip", "addr show dev lo"), addresses);
    });
}

#[test]
fn a_new_rule_set_leaves_open_connections_alone() {
    in_namespace(|| {
        let _pod = Pod::new();
        install(&rules(Own::Uid(PROXY))).unwrap();
        let listener = TcpListener::bind("[::]:15001").unwrap();
        let mut opened = dial(APPLICATION, at(SERVICE[0], 80), None, None).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        install(&rules(Own::Mark(7))).unwrap();
        opened.write_all(b"still").unwrap();
        let mut said = [0; 5];
        accepted.read_exact(&mut said).unwrap();
        accepted.write_all(&said).unwrap();
        opened.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"still");
    });
}

#[test]
fn a_refused_rule_set_changes_nothing() {
    in_namespace(|| {
        install(&rules(Own::Uid(PROXY))).unwrap();
        let before = run("nft", "list ruleset");
        let mut list = rules(Own::Mark(7)).list();
        // A base chain can't be a destination, so the last rule is refused.
        list.push(rules::Rule {
            chain: rules::Chain::Proxy,
            when: vec![],
            then: rules::Then::GoTo(rules::Chain::Output),
        });
        let refused = netlink::transaction(&nft::replace(&list)).unwrap_err();
        assert_eq!(refused.part, Part::Rule(rules::Chain::Proxy));
        assert_eq!(run("nft", "list ruleset"), before);
    });
}

#[test]
fn a_mark_tells_the_proxy_where_everybody_has_one_uid() {
    in_namespace(|| {
        let pod = Pod::new();
        by_mark(&pod);
    });
}

/// The table by mark, with the proxy's own dials; the same as root and within
/// a user namespace.
fn by_mark(_pod: &Pod) {
    install(&rules(Own::Mark(0x2102))).unwrap();
    let ends = Ends::new();
    let proxy = async |to, inbound| {
        sock::connect(
            to,
            Source {
                inbound,
                mark: Some(0x2102),
            },
            &Liveness::default(),
        )
        .await
    };
    for family in FAMILIES {
        let service = at(SERVICE[family], 80);
        assert_eq!(
            ends.follow(service, async || dial(0, service, None, None)),
            Reached::Outbound(service)
        );
        let own = at(POD[family], 8080);
        assert_eq!(
            ends.follow(own, async || dial(0, own, None, None)),
            Reached::Itself
        );
        assert_eq!(
            ends.follow(own, async || proxy(own, false).await),
            Reached::Inbound(own)
        );
        assert_eq!(
            ends.follow(own, async || proxy(own, true).await),
            Reached::Itself
        );
    }
}

#[test]
fn the_rules_hold_inside_an_unprivileged_user_namespace() {
    let program = std::env::current_exe().unwrap();
    let child = "redirect::tests::inside_a_user_namespace --exact --ignored --nocapture";
    let output = Process::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .arg(program)
        .args(child.split(' '))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    if said.contains("unshare failed") {
        skipped(&format!("user namespaces are switched off here: {said}"));
        return;
    }
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

#[test]
#[ignore = "run by the test above, in the namespaces that it makes"]
fn inside_a_user_namespace() {
    in_namespace(|| by_mark(&Pod::new()));
}

#[test]
fn without_the_right_it_says_so_and_how_to_get_it() {
    if !Uid::effective().is_root() {
        skipped("needs root to give up the right");
        return;
    }
    let said = thread::spawn(|| {
        // A user namespace below owns no network: capabilities count for nothing.
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let program = std::env::current_exe().unwrap();
        let child = "redirect::tests::without_the_right --exact --ignored --nocapture";
        let output = Process::new("unshare")
            .args(["--user", "--map-root-user"])
            .arg(program)
            .args(child.split(' '))
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    });
    let said = said.join().unwrap();
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "run by the test above, in the namespace that it makes"]
fn without_the_right() {
    let refused = install(&rules(Own::Mark(7))).unwrap_err();
    assert!(matches!(refused, RedirectError::NotPermitted), "{refused}");
    assert!(refused.to_string().contains("NET_ADMIN"));
}

/// Has `socket(AF_NETLINK, _, NETLINK_NETFILTER)` fail as on a kernel without it,
/// then becomes a program: `BPF` in hexadecimal, program, arguments.
const WITHOUT_NETFILTER: &str = "
import ctypes, os, sys
code = bytes.fromhex(sys.argv[1])
class Program(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('filter', ctypes.c_char_p)]
program = Program(len(code) // 8, code)
prctl = ctypes.CDLL(None, use_errno=True).prctl
if prctl(38, 1, 0, 0, 0) or prctl(22, 2, ctypes.byref(program), 0, 0):
    sys.exit('prctl: ' + os.strerror(ctypes.get_errno()))
os.execv(sys.argv[2], sys.argv[2:])
";

/// seccomp(2): everything is allowed but that socket.
fn without_netfilter() -> String {
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let socket = u32::try_from(nix::libc::SYS_socket).unwrap();
    let refused = 0x0005_0000 | EPROTONOSUPPORT as u32;
    // Offsets in `seccomp_data`: the call's number, then its arguments by eight from 16.
    let program: [(u16, u8, u32); 8] = [
        (LOAD, 0, 0),
        (EQUAL, 5, socket),
        (LOAD, 0, 16),
        (EQUAL, 3, nix::libc::AF_NETLINK as u32),
        (LOAD, 0, 32),
        (EQUAL, 1, nix::libc::NETLINK_NETFILTER as u32),
        (RETURN, 0, refused),
        (RETURN, 0, 0x7fff_0000),
    ];
    let words = program.map(|(code, otherwise, value)| {
        let mut word = code.to_ne_bytes().to_vec();
        word.extend([0, otherwise]);
        word.extend(value.to_ne_bytes());
        word
    });
    let bytes = words.concat();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_kernel_without_nf_tables_is_named_with_the_remedy() {
    if !Uid::effective().is_root() {
        skipped("needs root to make a network");
        return;
    }
    let output = Process::new("python3")
        .args(["-c", WITHOUT_NETFILTER, &without_netfilter()])
        .arg(std::env::current_exe().unwrap())
        .args(["redirect::tests::without_nf_tables", "--exact", "--ignored"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("1 passed"), "{said}{error}");
}

#[test]
#[ignore = "run by the test above, without the sockets that it takes away"]
fn without_nf_tables() {
    in_namespace(|| {
        let refused = install(&rules(Own::Uid(PROXY))).unwrap_err();
        assert!(matches!(refused, RedirectError::NoNfTables), "{refused}");
        assert!(refused.to_string().contains("modprobe nf_tables"));
        // Nothing is left half done.
        let addresses = run("ip", "-6 addr show dev lo");
        assert!(!addresses.contains("::6/128"), "{addresses}");
    });
}

#[test]
fn what_a_kernel_refuses_is_explained_by_what_it_lacks() {
    let explained = |part, number| {
        let error = io::Error::from_raw_os_error(number);
        explain(netlink::Refused { part, error })
    };
    let chain = || Part::Chain(rules::Chain::ALL[0]);
    // nfnetlink without nf_tables refuses the batch as a whole.
    for part in [Part::Transaction, Part::Table] {
        for number in [EOPNOTSUPP, EAFNOSUPPORT] {
            let it = explained(part, number);
            assert!(matches!(it, RedirectError::NoNfTables), "{it}");
        }
    }
    // nf_tables without nat knows no chain of that type.
    let it = explained(chain(), ENOENT);
    assert!(it.to_string().contains("it refused chain"), "{it}");
    assert!(it.to_string().contains("nft_chain_nat"), "{it}");
    // Nor without redir such a rule.
    let it = explained(Part::Rule(rules::Chain::ALL[0]), ENOENT);
    assert!(matches!(it, RedirectError::NoNat { .. }), "{it}");
    for part in [Part::Socket, Part::Transaction, chain()] {
        let it = explained(part, EPERM);
        assert!(matches!(it, RedirectError::NotPermitted), "{it}");
    }
    let it = explained(Part::Table, nix::libc::ENOMEM);
    assert!(
        it.to_string().contains("the kernel refused the table"),
        "{it}"
    );
}

#[test]
fn ipv6_switched_off_is_no_failure_and_half_switched_off_is() {
    in_namespace(|| {
        run("sysctl", "-qw net.ipv6.conf.lo.disable_ipv6=1");
        run("ip", "link add eth0 type veth peer name eth1");
        run("ip", "addr add fd01::2/64 dev eth0 nodad");
        run("ip", "link set eth0 up");
        let refused = install(&rules(Own::Uid(PROXY))).unwrap_err();
        assert!(
            matches!(refused, RedirectError::NoIpv6Loopback(_)),
            "{refused}"
        );
        assert_eq!(run("nft", "list ruleset"), "");
        run("sysctl", "-qw net.ipv6.conf.all.disable_ipv6=1");
        install(&rules(Own::Uid(PROXY))).unwrap();
        assert_ne!(run("nft", "list ruleset"), "");
    });
}

#[test]
fn the_command_line_says_the_same_as_the_rules() {
    #[derive(clap::Parser)]
    struct Shell {
        #[command(flatten)]
        command: Command,
    }
    let parse = |line: &str| <Shell as clap::Parser>::try_parse_from(line.split(' '));
    let line = "redirect --exclude-outbound-ports 3306 --exclude-outbound-cidrs 10.9.9.0/24,fd09:9::/33 \
                --exclude-inbound-ports 9000,9001";
    let given = parse(&line.replace("  ", "")).ok().unwrap().command.rules();
    assert_eq!(given.list(), rules(Own::Uid(PROXY)).list());
    let marked = parse("redirect --proxy-mark 0x2102")
        .ok()
        .unwrap()
        .command
        .rules();
    assert_eq!(marked.own, Own::Mark(0x2102));
    for wrong in [
        "redirect --proxy-mark 0",
        "redirect --proxy-mark 1 --proxy-uid 2",
        "redirect --exclude-outbound-cidrs x",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}
