//! Frames of HTTP/2 that cost us more than their client.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_are_told_to_calm_down() {
    let stage = Stage::with(&[]).await;
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let window = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let priority = [0, 0, 5, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
    let unknown = [0, 0, 0, 0xfe, 0, 0, 0, 0, 0];
    for frame in [&ping[..], &settings, &window, &priority, &unknown] {
        let mut flood = stage.connect().await;
        let bytes = [HELLO, &frame.repeat(5_000)].concat();
        // The connection may be closed before all of it is taken.
        let _ = flood.write_all(&bytes).await;
        rest(flood).await;
    }
    // A connection is counted after it is closed.
    eventually("each is counted", || async {
        let limit = [("limit", "http2_control_frames_max")];
        stage.proxy.metric("weft_limit_reached_total", &limit).await.filter(|count| *count == 5.0)
    })
    .await;
    stage.serves().await;
}

/// Header block of `GET / HTTP/1.1`-like pseudo-headers, from HPACK's static table, and an authority.
const BLOCK: &[u8] = b"\x82\x84\x86\x41\x07catalog";

/// A client's first bytes, and so many requests that are reset at once.
fn reset_at_once(count: u32) -> Vec<u8> {
    let length = u8::try_from(BLOCK.len()).expect("a short block");
    let mut bytes = HELLO.to_vec();
    for stream in (1..).step_by(2).take(count as usize) {
        let stream = u32::to_be_bytes(stream);
        bytes.extend([&[0, 0, length, 1, 5][..], &stream, BLOCK].concat());
        bytes.extend([&[0, 0, 4, 3, 0][..], &stream, &[0, 0, 0, 8]].concat());
    }
    bytes
}

/// A request that is reset before anybody looked at it costs no more than that; those who wait behind a thousand would.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_reset_before_it_is_looked_at_is_not_looked_at() {
    const SENT: u32 = 900;
    let stage = Stage::with(&[]).await;
    let mut client = stage.connect().await;
    client.write_all(&reset_at_once(SENT)).await.expect("written");
    let length = u8::try_from(BLOCK.len()).expect("a short block");
    let last = (2 * SENT + 1).to_be_bytes();
    client.write_all(&[&[0, 0, length, 1, 5][..], &last, BLOCK].concat()).await.expect("written");
    eventually("the last is answered", || async {
        stage
            .proxy
            .metric("istio_requests_total", &[("response_code", "200")])
            .await
            .filter(|count| *count == 1.0)
    })
    .await;
    let left =
        stage.proxy.metric("istio_requests_total", &[("response_flags", "DC")]).await.unwrap_or_default();
    assert!(left < f64::from(SENT) / 4.0, "{left} of {SENT} were looked at");
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_and_empty_frames_end_the_connection() {
    let stage = Stage::with(&[]).await;
    let length = u8::try_from(BLOCK.len()).expect("a short block");
    let resets = reset_at_once(4_000);
    let mut empty = HELLO.to_vec();
    empty.extend([&[0, 0, length, 1, 4, 0, 0, 0, 1][..], BLOCK].concat());
    empty.extend([0, 0, 0, 0, 0, 0, 0, 0, 1].repeat(5_000));
    let mut continuation = HELLO.to_vec();
    continuation.extend([0, 0, 0, 1, 0, 0, 0, 0, 1]);
    continuation.extend([0, 0, 0, 9, 0, 0, 0, 0, 1].repeat(5_000));
    for bytes in [resets, empty, continuation] {
        let mut flood = stage.connect().await;
        let _ = flood.write_all(&bytes).await;
        rest(flood).await;
    }
    eventually("each is counted", || async {
        stage.proxy.metric("weft_limit_reached_total", &[]).await.filter(|count| *count >= 3.0)
    })
    .await;
    stage.proxy.reached("http2_reset_frames_max").await;
    stage.serves().await;
}
