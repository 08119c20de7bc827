use super::*;

struct Client {
    guard: Rc<Guard>,
    now: Rc<Cell<u64>>,
}

impl Client {
    fn new() -> Client {
        let limits =
            Limits { head_time_max_ms: 5_000, downstream_idle_time_max_ms: 20_000, ..Limits::default() };
        let now = Rc::new(Cell::new(100));
        Client { guard: Guard::new(&Rc::new(limits), &now), now }
    }

    /// Lets so many seconds pass; what is closed by then, and after how many.
    fn wait(&self, seconds: u64) -> Option<(u64, Closing)> {
        (1..=seconds).find_map(|second| {
            self.now.set(self.now.get() + 1);
            self.guard.sweep(1);
            self.guard.closing.get().map(|closing| (second, closing))
        })
    }
}

const SLOW: Closing = Closing::Limit("head_time_max_ms");

#[test]
fn a_silent_connection_is_idle() {
    assert_eq!(Client::new().wait(60), Some((20, Closing::Idle)));
}

#[test]
fn a_head_must_come_in_time_however_it_trickles() {
    let client = Client::new();
    assert_eq!(client.wait(15), None);
    for _ in 0..4 {
        client.guard.received(b"G");
        assert_eq!(client.wait(1), None);
    }
    assert_eq!(client.wait(60), Some((1, SLOW)));
}

#[test]
fn a_request_may_take_its_time() {
    let client = Client::new();
    client.guard.received(b"GET / HTTP/1.1\r\n\r\n");
    client.guard.request_begins();
    client.guard.received(b"a slow body");
    assert_eq!(client.wait(1000), None);
    client.guard.request_ends();
    assert_eq!(client.wait(60), Some((20, Closing::Idle)));
}

#[test]
fn a_head_behind_a_request_must_come_in_time_too() {
    let client = Client::new();
    client.guard.received(b"GET / HTTP/1.1\r\n\r\nGET / HT");
    client.guard.request_begins();
    assert_eq!(client.wait(10), None);
    client.guard.request_ends();
    client.guard.head_begins();
    assert_eq!(client.wait(60), Some((5, SLOW)));

    let client = Client::new();
    client.guard.speaks_http2(0);
    client.guard.received(&[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x82, 0, 0, 1, 1, 0, 0, 0, 0, 3, 0x82]);
    client.guard.request_begins();
    assert_eq!(client.wait(3), None);
    client.guard.request_ends();
    assert_eq!(client.wait(60), Some((2, SLOW)));
}

#[test]
fn what_may_make_room() {
    let client = Client::new();
    assert_eq!(client.guard.idle_since(), None, "it has just come");
    client.wait(1);
    assert_eq!(client.guard.idle_since(), Some(100));
    client.guard.received(b"G");
    client.wait(1);
    assert_eq!(client.guard.idle_since(), None, "it asks for something");
    client.guard.request_begins();
    client.wait(1);
    assert_eq!(client.guard.idle_since(), None, "it is served");
    client.guard.request_ends();
    client.wait(1);
    assert_eq!(client.guard.idle_since(), Some(103));
    client.guard.close_idle();
    client.wait(1);
    assert_eq!(client.guard.idle_since(), None, "it is on its way out");
}

#[test]
fn an_http2_connection_is_idle_though_it_pings() {
    let client = Client::new();
    client.guard.speaks_http2(0);
    for _ in 0..19 {
        client.guard.received(&[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(client.wait(1), None);
    }
    assert_eq!(client.wait(60), Some((1, Closing::Idle)));
    client.guard.closing.set(Some(Closing::Idle));
    let ended = (1..=60).find(|_| client.wait(1) == Some((1, Closing::Ended)));
    assert_eq!(ended, Some(2), "it does not agree that it ends");
}

#[test]
fn an_open_header_block_is_a_slow_head() {
    let client = Client::new();
    client.guard.speaks_http2(0);
    client.guard.received(&[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]);
    assert_eq!(client.wait(60), Some((5, SLOW)));
}

#[test]
fn a_flood_closes_at_once() {
    let client = Client::new();
    client.guard.speaks_http2(0);
    for _ in 0..=Limits::default().http2_control_frames_max {
        client.guard.received(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    }
    assert_eq!(client.guard.closing.get(), Some(Closing::Limit("http2_control_frames_max")));
}
