//! Real servers and clients, zero annotations: what a client prints is the
//! same with a mesh and without.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::Signal;
use weft_tests::{
    wait,
    world::{self, Pod, World},
};

/// Runs the same with a mesh and without; the answers must be equal.
fn compare<T: PartialEq + std::fmt::Debug>(
    service: &str,
    port: u16,
    run: impl Fn(&World) -> T,
) -> Option<(World, T)> {
    if !world::possible() {
        return None;
    }
    let manifests = world::service(service, &[port]);
    let plain = run(&World::without_mesh(&manifests));
    let meshed = World::new(&manifests);
    let with = run(&meshed);
    assert!(with == plain, "with the mesh {with:#?}\nwithout {plain:#?}");
    Some((meshed, with))
}

fn as_user(name: &str) -> Vec<String> {
    let id = |what: &str| format!("--{what}={name}");
    [
        "setpriv".into(),
        id("reuid"),
        id("regid"),
        "--clear-groups".into(),
    ]
    .to_vec()
}

fn words<'a>(before: &'a [String], rest: &[&'a str]) -> Vec<&'a str> {
    before
        .iter()
        .map(String::as_str)
        .chain(rest.iter().copied())
        .collect()
}

/// A python of the build with the packages of `tests/setup.sh`.
pub(crate) fn python(script: &str) -> [PathBuf; 2] {
    let own = std::env::current_exe().unwrap();
    let python = own
        .ancestors()
        .nth(3)
        .unwrap()
        .join("tools/python/bin/python");
    assert!(
        python.is_file(),
        "{} is missing: run tests/setup.sh",
        python.display()
    );
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("netns/python");
    [python, scripts.join(script)]
}

fn nginx(world: &World, port: u16, options: &str) -> Pod {
    let files = world.scratch("nginx");
    fs::write(files.join("page"), "a page\n".repeat(12)).unwrap();
    let key =
        ["key.pem", "certificate.pem"].map(|name| files.join(name).to_str().unwrap().to_owned());
    let mut make = Command::new("openssl");
    make.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ]);
    make.args([
        "-subj",
        "/CN=web.shop",
        "-addext",
        "subjectAltName=DNS:web.shop",
        "-days",
        "1",
    ]);
    assert!(
        make.args(["-keyout", &key[0], "-out", &key[1]])
            .output()
            .unwrap()
            .status
            .success()
    );
    let at = files.display();
    let configuration = format!(
        "daemon off; pid {at}/pid; error_log stderr; worker_processes 1; user root;
         events {{}}
         http {{
           access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;
           fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
           ssl_certificate {}; ssl_certificate_key {};
           server {{
             listen {port} {options}; root {at};
             location /echo {{ return 200 \"$request_method $http_host $http_x_mine $server_protocol\"; }}
             location /gone {{ return 410; }}
             location /moved {{ return 301 /page; }}
           }}
         }}",
        key[1], key[0]
    );
    let file = files.join("nginx.conf");
    fs::write(&file, configuration).unwrap();
    world
        .pod("shop/web-0")
        .port(port)
        .run(["nginx", "-c", file.to_str().unwrap()])
}

/// What curl prints of answers, without the moment that they were made and
/// what is between two neighbours alone.
fn curl(client: &Pod, version: &str, arguments: &[&str]) -> String {
    let common = [
        "curl",
        "--silent",
        "--show-error",
        "--include",
        "--max-time",
        "15",
        version,
    ];
    let text = client.output(common.iter().chain(arguments)).success();
    let is_moment = |line: &str| {
        let name = line.split(':').next().unwrap_or_default().to_lowercase();
        ["date", "last-modified", "etag", "connection"].contains(&name.as_str())
    };
    let lines: Vec<&str> = text.lines().filter(|line| !is_moment(line)).collect();
    lines.join("\n")
}

#[test]
fn nginx_and_curl_speak_every_version_of_http() {
    for (options, versions) in [
        ("", &["--http1.0", "--http1.1"][..]),
        ("http2", &["--http2-prior-knowledge"]),
    ] {
        let ran = compare("shop/web", 8080, |world| {
            let _web = nginx(world, 8080, options);
            let client = world.idle("shop/client-0");
            let url = |path: &str| format!("http://web.shop:8080/{path}");
            let mut all = Vec::new();
            for version in versions {
                for arguments in [
                    &["-H", "X-Mine: a", &url("echo")][..],
                    &[&url("page")],
                    &["--head", &url("page")],
                    &["--range", "10-19", &url("page")],
                    &[&url("gone")],
                    &[&url("moved")],
                    &["-X", "DELETE", &url("echo")],
                ] {
                    all.push(curl(&client, version, arguments));
                }
                // nginx answers this one without reading the body, which curl
                // takes for a broken stream in HTTP/2, with or without a mesh.
                if options.is_empty() {
                    let body = ["--data-binary", "some body", &url("echo")];
                    all.push(curl(&client, version, &body));
                }
            }
            if world.is_meshed() {
                assert_eq!(
                    client.logs("a request", |line| line["path"] == "/echo")["kind"],
                    "request"
                );
            }
            all
        });
        if let Some((_, answers)) = ran {
            assert!(
                answers
                    .iter()
                    .any(|it| it.contains("GET web.shop:8080 a HTTP/")),
                "{answers:#?}"
            );
        }
    }
}

#[test]
fn the_applications_own_tls_stays_its_own() {
    let Some((_, shown)) = compare("shop/web", 8443, |world| {
        let _web = nginx(world, 8443, "ssl http2");
        let client = world.idle("shop/client-0");
        let certificate = world.scratch_root().join("nginx/certificate.pem");
        let ca = ["--cacert", certificate.to_str().unwrap()];
        let url = "https://web.shop:8443/echo";
        let mut all = Vec::new();
        for version in ["--http1.1", "--http2"] {
            all.push(curl(&client, version, &[ca[0], ca[1], url]));
        }
        let seen = client.start([
            "openssl",
            "s_client",
            "-connect",
            "web.shop:8443",
            "-servername",
            "web.shop",
            "-brief",
        ]);
        let seen = seen.finished();
        all.push(
            seen.stderr()
                .lines()
                .filter(|line| line.contains("CN"))
                .collect(),
        );
        all
    }) else {
        return;
    };
    assert!(shown[1].starts_with("HTTP/2 200"), "{shown:#?}");
    assert!(shown[2].contains("web.shop"), "{shown:#?}");
}

fn postgres(world: &World) -> Pod {
    let programs = fs::read_dir("/usr/lib/postgresql")
        .unwrap()
        .flatten()
        .next()
        .unwrap()
        .path()
        .join("bin");
    let data = world.scratch("postgres");
    let at = data.join("data");
    let at = at.to_str().unwrap();
    let user = as_user("postgres");
    let initdb = programs.join("initdb");
    let make = words(
        &user,
        &[
            initdb.to_str().unwrap(),
            "-D",
            at,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
        ],
    );
    let made = Command::new(make[0])
        .args(&make[1..])
        .current_dir("/")
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let mut rules = fs::OpenOptions::new()
        .append(true)
        .open(data.join("data/pg_hba.conf"))
        .unwrap();
    writeln!(rules, "host all all all trust").unwrap();
    let server = programs.join("postgres");
    let run = [
        server.to_str().unwrap(),
        "-D",
        at,
        "-c",
        "listen_addresses=*",
        "-c",
        "unix_socket_directories=",
        "-c",
        "fsync=off",
    ];
    world.pod("shop/db-0").port(5432).run(words(&user, &run))
}

#[test]
fn postgresql_queries_copies_notifies_and_cancels() {
    compare("shop/db", 5432, |world| {
        let _db = postgres(world);
        let client = world.idle("shop/client-0");
        let psql = [
            "psql",
            "-X",
            "-q",
            "-A",
            "-t",
            "-h",
            "db.shop",
            "-U",
            "postgres",
            "-v",
            "ON_ERROR_STOP=1",
        ];
        let ask = |sql: &str| {
            client
                .output(psql.iter().copied().chain(["-c", sql]))
                .success()
        };
        let mut all = vec![
            ask("create table t (a int, b text)"),
            ask("copy (select generate_series(1, 1000)) to stdout"),
            ask(
                "select md5(string_agg(x, '')) from (select repeat(md5(i::text), 30) as x from generate_series(1, 1000) i) s",
            ),
        ];
        let large = ask("select repeat('x', 1000) from generate_series(1, 20000)");
        all.push(format!("{} bytes", large.len()));

        let mut copy = client.start(psql.iter().copied().chain(["-c", "copy t from stdin"]));
        let rows: String = (0..20_000).map(|at| format!("{at}\trow {at}\n")).collect();
        copy.stdin().write_all(rows.as_bytes()).unwrap();
        all.push(copy.finished().success());
        all.push(ask("select count(*), sum(a) from t"));

        let mut listener = client.start(psql);
        let mut say = listener.stdin();
        say.write_all(b"listen news;\nselect 'listening';\n")
            .unwrap();
        listener.says("listening");
        all.push(ask("notify news, 'extra'"));
        say.write_all(b"select 1;\n").unwrap();
        listener.says("payload \"extra\"");

        let asleep = client.start(psql.iter().copied().chain(["-c", "select pg_sleep(60)"]));
        wait::until("the query to run", || {
            ask("select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'").starts_with('1').then_some(())
        });
        asleep.signal(Signal::SIGINT);
        let ended = asleep.finished();
        all.push(format!("{:?} {}", ended.status.code(), ended.stderr()));
        all
    });
}

#[test]
fn mariadb_speaks_first_and_answers() {
    compare("shop/maria", 3306, |world| {
        let data = world.scratch("maria");
        let at = data.to_str().unwrap();
        let user = as_user("mysql");
        let installed = Command::new("mariadb-install-db")
            .args([
                "--no-defaults",
                "--user=mysql",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ])
            .arg(format!("--datadir={at}"))
            .output()
            .unwrap();
        assert!(
            installed.status.success(),
            "{}",
            String::from_utf8_lossy(&installed.stderr)
        );
        let datadir = format!("--datadir={at}");
        let socket = format!("--socket={at}/socket");
        let run = [
            "mariadbd",
            "--no-defaults",
            &datadir,
            &socket,
            "--port=3306",
            "--bind-address=*",
            "--skip-grant-tables",
            "--skip-networking=0",
        ];
        let _maria = world.pod("shop/maria-0").port(3306).run(words(&user, &run));
        let client = world.idle("shop/client-0");
        let ask = |sql: &str| {
            let run = [
                "mariadb",
                "--no-defaults",
                "--protocol=tcp",
                "--host=maria.shop",
                "--batch",
                "--execute",
            ];
            client.output(run.into_iter().chain([sql])).success()
        };
        let all = vec![
            ask("select 1 + 1"),
            ask(
                "create database d; use d; create table t (a int); insert into t values (1), (2); select sum(a) from t",
            ),
            format!("{} bytes", ask("select repeat('x', 5000000)").len()),
        ];
        if world.is_meshed() {
            assert_eq!(
                client.logs("a connection", |line| line["service"] == "shop/maria")["kind"],
                "connection"
            );
        }
        all
    });
}

#[test]
fn redis_pipelines_and_publishes() {
    compare("shop/redis", 6379, |world| {
        let server = [
            "redis-server",
            "--port",
            "6379",
            "--bind",
            "0.0.0.0",
            "::",
            "--protected-mode",
            "no",
            "--save",
            "",
            "--appendonly",
            "no",
        ];
        let files = world.scratch("redis");
        let _redis = world
            .pod("shop/redis-0")
            .port(6379)
            .run(server.into_iter().chain(["--dir", files.to_str().unwrap()]));
        let client = world.idle("shop/client-0");
        let cli = ["redis-cli", "-h", "redis.shop"];
        let ask = |words: &[&str]| client.output(cli.iter().chain(words)).success();

        let mut pipe = client.start(cli.iter().chain(&["--pipe"]));
        let commands: String = (0..10_000)
            .map(|at| format!("*3\r\n$3\r\nSET\r\n$5\r\n{at:05}\r\n$5\r\n{at:05}\r\n"))
            .collect();
        pipe.stdin().write_all(commands.as_bytes()).unwrap();
        let piped = pipe.finished().success();

        let subscriber = client.start(cli.iter().chain(&["subscribe", "news"]));
        subscriber.says("subscribe");
        let reached = ask(&["publish", "news", "extra"]);
        subscriber.says("extra");
        vec![
            piped,
            reached,
            ask(&["get", "09999"]),
            ask(&["dbsize"]),
            ask(&["ping"]),
        ]
    });
}

#[test]
fn websockets_by_a_real_library_carry_messages_and_close_codes() {
    let Some((_, said)) = compare("shop/chat", 8765, |world| {
        let [python_path, server] = python("websocket_server.py");
        let _chat = world.pod("shop/chat-0").port(8765).run([
            python_path.as_os_str(),
            server.as_os_str(),
            "8765".as_ref(),
        ]);
        let client = world.idle("shop/client-0");
        let [python_path, script] = python("websocket_client.py");
        let said = client
            .output([
                python_path.as_os_str(),
                script.as_os_str(),
                "ws://chat.shop:8765/".as_ref(),
            ])
            .success();
        if world.is_meshed() {
            assert_eq!(
                client.logs("the upgrade", |line| line["status"] == 101)["kind"],
                "request"
            );
        }
        said
    }) else {
        return;
    };
    assert_eq!(said, "hello \u{e9}\nTrue\nTrue\n4001 as you wish\n");
}

#[test]
fn grpc_by_another_implementation_works_in_every_kind_of_call() {
    let Some((_, said)) = compare("shop/rpc", 50051, |world| {
        let [python_path, server] = python("grpc_server.py");
        let _rpc = world.pod("shop/rpc-0").port(50051).run([
            python_path.as_os_str(),
            server.as_os_str(),
            "50051".as_ref(),
        ]);
        let client = world.idle("shop/client-0");
        let [python_path, script] = python("grpc_client.py");
        let said = client
            .output([
                python_path.as_os_str(),
                script.as_os_str(),
                "rpc.shop:50051".as_ref(),
            ])
            .success();
        if world.is_meshed() {
            let unary = client.logs("the unary call", |line| line["path"] == "/it.Service/Unary");
            assert_eq!(
                (&unary["kind"], &unary["grpc_status"]),
                (&"request".into(), &0.into())
            );
        }
        said
    }) else {
        return;
    };
    for part in [
        "unary b\"cbax-mine='v1'|x-mine='v2'",
        "large 3000000 True",
        "stream out True",
        "stream in b'a+b+c'",
        "FAILED_PRECONDITION",
        "DEADLINE_EXCEEDED",
        "server saw its end b'yes'",
        "cancelled StatusCode.CANCELLED",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
}
