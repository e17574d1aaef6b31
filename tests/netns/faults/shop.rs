//! The mesh of the fault table: one application with a port for each way to
//! fail, services that lead there under different policies, and a rogue pod.

use std::{cell::RefCell, net::TcpListener, time::Duration};

use http::HeaderMap;
use nix::sys::signal::{Signal, kill};
use socket2::{Domain, Socket, Type};
use weft_tests::{
    http2::Application,
    probe::Raw,
    recorder::{Recorder, Say, has_head},
    rogue::{self, Authority, Server, Validity},
    wait,
    world::{self, Pod, World},
};

use super::table::Tells;

/// Of nobody, and outside of the mesh.
const NOWHERE: &str = "203.0.113.1";

pub(super) struct Shop {
    pub(super) mesh: World,
    pub(super) client: Pod,
    pub(super) app: Pod,
    pub(super) stranger: Pod,
    /// Two whose proxies will have lost something.
    pub(super) uncertified: Pod,
    pub(super) unconfigured: Pod,
    _neighbour: Pod,
    _lost: [Pod; 2],
    recorders: Vec<Recorder>,
    /// Speaks HTTP/2, and announces no WebSockets over it.
    two: Application,
    rogues: Vec<Server>,
    /// Accepts nobody: two connections fill it.
    _full: (Socket, Vec<std::net::TcpStream>),
    pub(super) held: RefCell<Vec<Raw>>,
}

/// What the application does on its ports.
fn application(pod: &Pod) -> Vec<Recorder> {
    let large = || {
        let mut head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: ".to_vec();
        head.resize(head.len() + 20_000, b'x');
        head.extend_from_slice(b"\r\n\r\n");
        head
    };
    vec![
        Recorder::http(pod.listen(8000)),
        Recorder::start(pod.listen(8001), |said| match has_head(said) {
            false => Say::Wait,
            true => Say::Reset,
        }),
        Recorder::saying(
            pod.listen(8002),
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        ),
        Recorder::saying(
            pod.listen(8003),
            b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
        ),
        Recorder::start(pod.listen(8004), move |said| match has_head(said) {
            false => Say::Wait,
            true => Say::Last(large()),
        }),
        Recorder::start(pod.listen(8005), |_| Say::Wait),
        Recorder::start(pod.listen(8006), |said| match has_head(said) {
            false => Say::Wait,
            true => Say::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort".to_vec()),
        }),
        Recorder::http(pod.listen(8007)),
        Recorder::http(pod.listen(8008)),
        Recorder::echo(pod.listen(8010)),
    ]
}

fn manifests() -> String {
    let mut all = world::namespace("shop");
    let service = |name: &str, target: u16, more: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  selector: {{app: app}}\n  ports: [{{name: p, port: 80, targetPort: {target}{more}}}]\n---\n"
        )
    };
    for (name, target) in [
        ("plain", 8000),
        ("resets", 8001),
        ("short", 8002),
        ("garbage", 8003),
        ("large", 8004),
        ("late", 8005),
        ("total", 8005),
        ("busy", 8005),
        ("waiting", 8005),
        ("idle", 8006),
        ("guarded", 8007),
        ("strict", 8008),
        ("refused", 8009),
        ("two", 8011),
        ("routed", 8000),
        ("broken", 8000),
    ] {
        all += &service(name, target, "");
    }
    all += &service("tcp", 8010, ", appProtocol: tcp");
    all += &service("brief", 8010, ", appProtocol: tcp");
    all += "apiVersion: v1\nkind: Service\nmetadata: {name: empty, namespace: shop}\nspec:\n  selector: {app: nobody}\n  ports: [{name: p, port: 80}]\n---\n";
    for (name, spec) in [
        ("late", "timeouts: {firstByte: 300ms}"),
        ("total", "timeouts: {request: 300ms}"),
        ("idle", "timeouts: {idle: 300ms}"),
        (
            "busy",
            "limits: {requests: 1, pending: 1, pendingTimeout: 1m}",
        ),
        (
            "waiting",
            "limits: {requests: 1, pending: 1, pendingTimeout: 300ms}",
        ),
        (
            "tcp",
            "limits: {connections: 1, requests: 100, pending: 1, pendingTimeout: 1m}",
        ),
        (
            "brief",
            "limits: {connections: 1, requests: 100, pendingTimeout: 300ms}",
        ),
        ("full", "timeouts: {connect: 300ms}"),
    ] {
        all += &format!(
            "apiVersion: weft.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  targetRefs: [{{group: '', kind: Service, name: {name}}}]\n  {spec}\n---\n"
        );
    }
    for (name, matches, backend) in [
        (
            "routed",
            "matches: [{path: {type: PathPrefix, value: /only}}]",
            "plain",
        ),
        (
            "broken",
            "matches: [{path: {type: PathPrefix, value: /}}]",
            "missing",
        ),
    ] {
        all += &format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  parentRefs: [{{group: '', kind: Service, name: {name}}}]\n  rules:\n  - {matches}\n    backendRefs: [{{name: {backend}, port: 80}}]\n---\n"
        );
    }
    for (name, spec) in [
        (
            "guarded",
            "ports: [8007]\n  rules:\n  - {action: Allow, to: {methods: [GET, POST], pathPrefixes: [/open]}}\n  - {action: Deny, to: {pathPrefixes: [/open/secret]}}",
        ),
        ("strict", "ports: [8008]\n  mtls: Strict"),
    ] {
        all += &format!(
            "apiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  selector: {{matchLabels: {{app: app}}}}\n  {spec}\n---\n"
        );
    }
    for (name, port) in ROGUES {
        all += &service(name, *port, "").replace("app: app", "app: ghost");
    }
    all += &service("mismatch", 8000, "").replace("app: app", "app: double");
    all += &listed("nowhere", NOWHERE, 80, "");
    all += &listed("elsewhere", NOWHERE, 80, "")
        .replace("spec:\n", "spec:\n  internalTrafficPolicy: Local\n")
        .replace("conditions:", "nodeName: another, conditions:");
    all
}

/// Services of a pod whose address is the stranger's by now, and the port of each.
const ROGUES: &[(&str, u16)] = &[
    ("foreign", 9000),
    ("expired", 9001),
    ("early", 9002),
    ("garbled", 9003),
    ("refusing", 9004),
    ("streamless", 9005),
];

/// A Service without selector, at one address.
pub(super) fn listed(name: &str, address: &str, port: u16, pod: &str) -> String {
    let target = match pod {
        "" => String::new(),
        pod => format!(", targetRef: {{kind: Pod, name: {pod}, namespace: shop}}"),
    };
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  ports: [{{name: p, port: 80, targetPort: {port}}}]\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-1, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{name: p, port: {port}}}]\nendpoints: [{{addresses: [{address}], conditions: {{ready: true}}{target}}}]\n---\n"
    )
}

impl Shop {
    pub(super) fn open() -> Self {
        let knobs = [
            ("WEFT_ACCESS_LOG_PER_SECOND", "100000"),
            ("WEFT_HEADER_TIMEOUT", "700ms"),
            ("WEFT_ASK_TIMEOUT", "1s"),
            // A loaded machine's client is slow to speak, and no row is about that.
            ("WEFT_CLIENT_SILENCE", "5s"),
            ("WEFT_MAX_HEADER_BYTES", "8192"),
            ("WEFT_MAX_TARGET_BYTES", "2048"),
        ];
        let mesh = World::with(true, &manifests(), &knobs);
        let app = mesh.idle("shop/app-0");
        let recorders = application(&app);
        let two = Application::start(app.listen(8011), HeaderMap::new(), HeaderMap::new());
        let client = mesh.idle("shop/client-0");
        let neighbour = mesh.idle("shop/neighbour-0");
        let [uncertified, unconfigured] =
            ["shop/uncertified-0", "shop/unconfigured-0"].map(|name| mesh.idle(name));
        let stranger = mesh
            .pod("shop/stranger-0")
            .flag("--no-mesh")
            .run(["sleep", "infinity"]);
        // The mesh still thinks that these live where others answer by now.
        let lost = [
            mesh.pod("shop/double-0")
                .option("--service-account", "double"),
            mesh.pod("shop/ghost-0")
                .option("--service-account", "ghost"),
        ];
        let lost = lost.map(|pod| pod.run(["sleep", "infinity"]));
        lost[0].lose_address_to(&neighbour);
        lost[1].lose_address_to(&stranger);
        let rogues = rogues(&mesh, &stranger);
        let full = full(&stranger);
        let address = stranger.address().to_string();
        mesh.write_manifest("full.yaml", &listed("full", &address, 9100, ""));
        let shop = Self {
            mesh,
            client,
            app,
            stranger,
            uncertified,
            unconfigured,
            _neighbour: neighbour,
            _lost: lost,
            recorders,
            two,
            rogues,
            _full: full,
            held: RefCell::default(),
        };
        // The second one shall know both its services when it has lost the rest.
        for (pod, service) in [
            (&shop.client, "plain"),
            (&shop.uncertified, "plain"),
            (&shop.uncertified, "tcp"),
        ] {
            wait::until("the application through both sidecars", || {
                let mut raw = shop.dial(pod, service, 80);
                let is_there = match service {
                    "tcp" => {
                        raw.send(b"first");
                        raw.exactly(5).is_ok()
                    }
                    _ => raw
                        .ask(b"GET /first HTTP/1.1\r\nHost: app\r\n\r\n")
                        .is_ok_and(|answer| answer.status == 200),
                };
                is_there.then_some(())
            });
        }
        shop
    }

    pub(super) fn connect(&self, service: &str) -> Raw {
        self.dial(&self.client, service, 80)
    }

    pub(super) fn dial(&self, from: &Pod, host: &str, port: u16) -> Raw {
        let stream = from.connect(host, port);
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        Raw::new(stream)
    }

    pub(super) fn teller(&self, tells: Tells) -> &Pod {
        match tells {
            Tells::Caller => &self.client,
            Tells::Called => &self.app,
            Tells::Uncertified => &self.uncertified,
            Tells::Unconfigured => &self.unconfigured,
        }
    }

    /// Faults that all proxies have made.
    pub(super) fn counted(&self) -> f64 {
        let proxies = [
            &self.client,
            &self.app,
            &self.uncertified,
            &self.unconfigured,
        ];
        let of = |pod: &&Pod| pod.metrics().sum("weft_traffic_faults_total", &[]);
        proxies.iter().map(of).sum()
    }

    /// Lets go of what a row held, and of what was heard.
    pub(super) fn forget(&self) {
        self.held.borrow_mut().clear();
        for recorder in &self.recorders {
            let _ = recorder.take();
        }
    }

    /// What reached the application, or a rogue that should not have had it.
    pub(super) fn heard(&self) -> Vec<u8> {
        let mut all: Vec<u8> = self.recorders.iter().flat_map(Recorder::bytes).collect();
        // The last one proves to be who it should be, and says no.
        let liars = self.rogues.iter().take(3);
        all.extend(liars.flat_map(Server::bytes));
        let asked = self.two.take();
        all.extend(asked.iter().flat_map(|asked| asked.target.bytes()));
        all
    }

    /// Until the control plane's process has really stopped.
    pub(super) fn frozen(&self) {
        let stat = format!("/proc/{}/stat", self.mesh.control_plane());
        wait::until("the control plane to freeze", || {
            let text = std::fs::read_to_string(&stat).ok()?;
            text.rsplit_once(") T").map(|_| ())
        });
    }

    /// Freezes the control plane, and restarts a pod's proxy without what it had
    /// kept in this file; it has kept all of these `names` in its configuration.
    pub(super) fn amnesia(&self, pod: &Pod, file: &str, names: &[&str]) {
        let name = pod.name().replacen('/', ".", 1);
        let state = self.mesh.directory().join("pods").join(name).join("state");
        // Kept a moment after the last change.
        wait::until("the proxy's whole state", || {
            let kept = std::fs::read(state.join("configuration.pb")).ok()?;
            let kept = String::from_utf8_lossy(&kept);
            let is_whole = names.iter().all(|name| kept.contains(name));
            (is_whole && state.join("identity.pem").exists()).then_some(())
        });
        self.mesh.signal_control_plane(Signal::SIGSTOP);
        self.frozen();
        let old = pod.proxy();
        // Not before it is dead: it might keep it again.
        kill(old, Signal::SIGSTOP).expect("it runs");
        std::fs::remove_file(state.join(file)).expect("it was kept");
        kill(old, Signal::SIGKILL).expect("it runs");
        wait::until("another proxy", || (pod.proxy() != old).then_some(()));
        for port in [15001, 15006, 15020] {
            pod.listens(port);
        }
    }

    /// Until somebody of the client's waits for a place.
    pub(super) fn waits(&self, gauge: &str) {
        wait::until("the one that waits", || {
            (self.client.metrics().sum(gauge, &[]) >= 1.0).then_some(())
        });
    }

    /// Until the application has so many connections on this port's recorder.
    pub(super) fn reached(&self, bytes: &[u8]) {
        wait::until("the request at the application", || {
            let holds = |it: &Recorder| it.bytes().windows(bytes.len()).any(|some| some == bytes);
            self.recorders.iter().any(holds).then_some(())
        });
    }
}

/// An answer that is so late will not come.
const PATIENCE: Duration = Duration::from_secs(8);

fn rogues(mesh: &World, pod: &Pod) -> Vec<Server> {
    let authority = Authority::of_mesh(mesh.directory());
    let unknown = Authority::unknown();
    let ghost = rogue::identity("shop", "ghost");
    let silent = |_: &[u8]| Vec::new();
    let listen = |port: u16| pod.listen(port);
    let servers = vec![
        Server::start(
            listen(9000),
            unknown.issue(&ghost, Validity::Now),
            None,
            silent,
        ),
        Server::start(
            listen(9001),
            authority.issue(&ghost, Validity::Past),
            None,
            silent,
        ),
        Server::start(
            listen(9002),
            authority.issue(&ghost, Validity::Future),
            None,
            silent,
        ),
        Server::start(
            listen(9004),
            authority.issue(&ghost, Validity::Now),
            Some(&unknown),
            silent,
        ),
        Server::start(
            listen(9005),
            authority.issue(&ghost, Validity::Now),
            None,
            refuse_streams,
        ),
    ];
    garbled(listen(9003));
    servers
}

/// Says something that is no TLS.
fn garbled(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            Raw::new(stream).send(b"220 no TLS here\r\n");
        }
    });
}

/// HTTP/2 that accepts a connection and refuses each stream, unread.
fn refuse_streams(said: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    let mut rest = said;
    if let Some(frames) = said.strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") {
        // SETTINGS_ENABLE_CONNECT_PROTOCOL, for lanes.
        answer.extend_from_slice(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1]);
        rest = frames;
    }
    while let Some((head, after)) = rest.split_at_checked(9) {
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        match (head[3], head[4] & 1) {
            (4, 0) => answer.extend_from_slice(&[0, 0, 0, 4, 1, 0, 0, 0, 0]),
            (1, _) => {
                answer.extend_from_slice(&[0, 0, 4, 3, 0]);
                answer.extend_from_slice(&head[5..9]);
                answer.extend_from_slice(&[0, 0, 0, 7]);
            }
            _ => {}
        }
        rest = after.get(length..).unwrap_or_default();
    }
    answer
}

/// A listener whose backlog is full: the kernel drops who comes then.
fn full(pod: &Pod) -> (Socket, Vec<std::net::TcpStream>) {
    let to = std::net::SocketAddr::new(pod.address(), 9100);
    pod.inside(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
        socket.bind(&to.into()).expect("the port is free");
        socket.listen(0).expect("it is bound");
        let mut fill = Vec::new();
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&to, Duration::from_millis(300))
        {
            fill.push(stream);
        }
        (socket, fill)
    })
}
