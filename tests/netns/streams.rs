//! Bodies in motion: memory stays bounded, the slow wait alone.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use tokio::time::Instant;
use weft_tests::{
    raw::Server,
    wait::PATIENCE,
    world::{self, Pod, World},
};

const PORT: u16 = 8080;
const MIB: usize = 1024 * 1024;
/// What a proxy may take for streams that stand still, beside what it had.
const BOUND: u64 = 24 * 1024 * 1024;

struct Mesh {
    application: Pod,
    client: Pod,
    _server: Server,
    _world: World,
}

/// An application that reads each request's body, then sends as many bytes as
/// the path says; `/stall` reads nothing after the head.
fn mesh(workers: &str) -> Mesh {
    let manifests = world::service("shop/web", &[PORT]);
    let world = World::with(true, &manifests, &[("WEFT_WORKERS", workers)]);
    let application = world.idle("shop/web-0");
    let server = Server::start(application.listen(PORT), |stream| {
        let _ = serve(stream);
    });
    let client = world.idle("shop/client-0");
    Mesh {
        application,
        client,
        _server: server,
        _world: world,
    }
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    loop {
        let head = read_head(&mut stream)?;
        let path = head.split(' ').nth(1).unwrap_or_default();
        if path == "/stall" {
            return stall(&stream);
        }
        let length = length(&head);
        std::io::copy(
            &mut Read::by_ref(&mut stream).take(length),
            &mut std::io::sink(),
        )?;
        let size: usize = path.trim_start_matches('/').parse().unwrap_or_default();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")?;
        let piece = vec![b'x'; 64 * 1024];
        let mut left = size;
        while left > 0 {
            let next = left.min(piece.len());
            stream.write_all(&piece[..next])?;
            left -= next;
        }
    }
}

/// Until the other side gives up, without reading.
fn stall(stream: &TcpStream) -> std::io::Result<()> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end && stream.take_error()?.is_none() {
        thread::park_timeout(Duration::from_millis(20));
    }
    Ok(())
}

fn read_head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn length(head: &str) -> u64 {
    let field = head.lines().find_map(|line| {
        line.to_lowercase()
            .strip_prefix("content-length:")
            .map(str::to_owned)
    });
    field
        .and_then(|it| it.trim().parse().ok())
        .unwrap_or_default()
}

fn ask(client: &Pod, path: &str) -> TcpStream {
    let mut stream = client.connect("web.shop", PORT);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: web.shop\r\n\r\n").unwrap();
    stream
}

/// The body's length, once it has all come.
fn whole(mut stream: TcpStream) -> u64 {
    let head = read_head(&mut stream).unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    std::io::copy(
        &mut Read::by_ref(&mut stream).take(length(&head)),
        &mut std::io::sink(),
    )
    .unwrap()
}

/// Writes until nothing moves any more; how much went.
fn fill(stream: &mut TcpStream, most: usize) -> usize {
    stream
        .set_write_timeout(Some(Duration::from_millis(700)))
        .unwrap();
    let piece = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    while sent < most {
        match stream.write(&piece) {
            Ok(more) => sent += more,
            Err(_) => break,
        }
    }
    sent
}

#[test]
fn hundred_megabytes_pass_each_way_in_bounded_memory() {
    if !world::possible() {
        return;
    }
    let mesh = mesh("1");
    assert_eq!(whole(ask(&mesh.client, "/10")), 10);
    let pods = [&mesh.client, &mesh.application];
    let before = pods.map(Pod::proxy_memory);

    let size = 100 * MIB;
    assert_eq!(whole(ask(&mesh.client, &format!("/{size}"))), size as u64);
    let during = pods.map(Pod::proxy_memory);

    let mut upload = mesh.client.connect("web.shop", PORT);
    write!(
        upload,
        "POST /2 HTTP/1.1\r\nHost: web.shop\r\nContent-Length: {size}\r\n\r\n"
    )
    .unwrap();
    let piece = vec![b'y'; MIB];
    for _ in 0..100 {
        upload.write_all(&piece).unwrap();
    }
    assert_eq!(whole(upload), 2);
    let after = pods.map(Pod::proxy_memory);
    for at in 0..2 {
        let most = during[at].max(after[at]);
        assert!(
            most < before[at] + BOUND,
            "{}: from {before:?} to {during:?}, {after:?}",
            pods[at].name()
        );
    }
}

#[test]
fn a_slow_reader_does_not_stall_99_others() {
    if !world::possible() {
        return;
    }
    for workers in ["1", "4"] {
        let mesh = mesh(workers);
        assert_eq!(whole(ask(&mesh.client, "/10")), 10);
        // On the same connection between the proxies, reading nothing.
        let slow = ask(&mesh.client, &format!("/{}", 64 * MIB));
        let others = thread::scope(|scope| {
            let one = || whole(ask(&mesh.client, "/200000"));
            let all: Vec<_> = (0..99).map(|_| scope.spawn(one)).collect();
            let lengths = all.into_iter().map(|it| it.join().unwrap());
            lengths.collect::<Vec<_>>()
        });
        assert_eq!(others, vec![200_000; 99]);
        assert_eq!(whole(slow), 64 * MIB as u64);
    }
}

#[test]
fn who_does_not_read_stops_the_writer_at_the_other_end() {
    if !world::possible() {
        return;
    }
    const MOST: usize = 256 * MIB;
    let mesh = mesh("1");
    assert_eq!(whole(ask(&mesh.client, "/10")), 10);
    let before = [&mesh.client, &mesh.application].map(Pod::proxy_memory);
    let mut upload = mesh.client.connect("web.shop", PORT);
    write!(
        upload,
        "POST /stall HTTP/1.1\r\nHost: web.shop\r\nContent-Length: {MOST}\r\n\r\n"
    )
    .unwrap();
    let sent = fill(&mut upload, MOST);
    assert!(
        sent < 40 * MIB,
        "{sent} bytes were taken for an application that reads nothing"
    );
    let after = [&mesh.client, &mesh.application].map(Pod::proxy_memory);
    for at in 0..2 {
        assert!(
            after[at] < before[at] + BOUND,
            "from {before:?} to {after:?}"
        );
    }
}

#[test]
fn a_caller_that_leaves_during_an_upload_is_seen_by_the_application() {
    if !world::possible() {
        return;
    }
    let mesh = mesh("1");
    let (gone, left) = std::sync::mpsc::channel();
    let gone = std::sync::Mutex::new(gone);
    let port = PORT;
    drop(mesh._server);
    let _server = Server::start(mesh.application.listen(port), move |mut stream| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        if read_head(&mut stream).is_ok() {
            let _ = gone.lock().unwrap().send(None);
            let read = std::io::copy(&mut stream, &mut std::io::sink());
            let _ = gone.lock().unwrap().send(read.ok());
        }
    });
    let mut upload = mesh.client.connect("web.shop", port);
    write!(
        upload,
        "POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 1000\r\n\r\nsome"
    )
    .unwrap();
    assert_eq!(left.recv_timeout(PATIENCE), Ok(None), "the head arrives");
    let reset = socket2::SockRef::from(&upload).set_linger(Some(Duration::ZERO));
    reset.unwrap();
    drop(upload);
    let seen = left.recv_timeout(Duration::from_secs(10));
    assert!(seen.is_ok(), "the application waits for the rest");
}
