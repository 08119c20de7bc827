use super::*;
use crate::http::codec::h2_settings;
use crate::time;

struct Client {
    guard: Rc<Guard>,
    second: Rc<Cell<u64>>,
    now: Cell<Instant>,
}

impl Client {
    fn new() -> Client {
        let limits =
            Limits { head_time_max_ms: 5_000, downstream_idle_time_max_ms: 20_000, ..Limits::default() };
        let (second, now) = (Rc::new(Cell::new(100)), time::now());
        Client {
            guard: Guard::new(&Rc::new(limits), (&Rc::default(), &Rc::default()), &second, now),
            second,
            now: Cell::new(now),
        }
    }

    /// Lets time pass, without a sweep.
    fn pass(&self, milliseconds: u64) -> &Client {
        self.now.set(self.now.get() + Duration::from_millis(milliseconds));
        self
    }

    /// Lets so many seconds pass, with a sweep at the end of each; what is closed by then, and after how many.
    fn wait(&self, seconds: u64) -> Option<(u64, Closing)> {
        (1..=seconds).find_map(|second| {
            self.pass(1_000);
            self.second.set(self.second.get() + 1);
            self.guard.sweep(self.now.get(), 1);
            self.guard.closing.get().map(|closing| (second, closing))
        })
    }

    fn sends(&self, bytes: &[u8]) {
        self.guard.received(bytes, || self.now.get());
    }

    /// What it has sent is looked at, and no head.
    fn is_in_head(&self) {
        self.guard.is_in_head(self.now.get());
    }

    fn request_ends(&self) {
        self.guard.request_ends(self.now.get());
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
        client.sends(b"G");
        client.is_in_head();
        assert_eq!(client.wait(1), None);
    }
    assert_eq!(client.wait(60), Some((1, SLOW)));
}

#[test]
fn a_request_may_take_its_time() {
    let client = Client::new();
    client.sends(b"GET / HTTP/1.1\r\n\r\n");
    client.guard.request_begins();
    client.sends(b"a slow body");
    assert_eq!(client.wait(1000), None);
    client.request_ends();
    assert_eq!(client.wait(60), Some((20, Closing::Idle)));
}

#[test]
fn a_head_behind_a_request_must_come_in_time_too() {
    let client = Client::new();
    client.sends(b"GET / HTTP/1.1\r\n\r\nGET / HT");
    client.guard.request_begins();
    assert_eq!(client.wait(10), None);
    client.request_ends();
    client.is_in_head();
    assert_eq!(client.wait(60), Some((5, SLOW)));

    let client = Client::new();
    client.guard.speaks_http2(0);
    client.sends(&[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x82, 0, 0, 1, 1, 0, 0, 0, 0, 3, 0x82]);
    client.guard.request_begins();
    assert_eq!(client.wait(3), None);
    client.request_ends();
    assert_eq!(client.wait(60), Some((2, SLOW)));
}

/// Whether what is waited for is ended when its time is over, at a sweep in the second after that, whenever it began.
#[test]
fn no_limit_is_met_before_its_time() {
    let check = |what: &str, seconds, late_max, begins: fn(&Client)| {
        for after_a_sweep in [0, 1, 300, 700, 999] {
            let client = Client::new();
            client.wait(3);
            client.pass(after_a_sweep);
            begins(&client);
            let began = client.now.get();
            client.now.set(began - Duration::from_millis(after_a_sweep));
            assert!(client.wait(60).is_some(), "{what}");
            let took = client.now.get() - began;
            let max = Duration::from_secs(seconds + late_max);
            assert!(
                took >= Duration::from_secs(seconds) && took <= max,
                "{what}, begun {after_a_sweep} ms after a sweep, ended after {took:?}"
            );
        }
    };
    check("a client without a request", 20, 1, |client| {
        client.sends(b"GET / HTTP/1.1\r\n\r\n");
        client.guard.request_begins();
        client.request_ends();
    });
    check("a session of TLS", 20, 1, |client| client.guard.secured(client.now.get()));
    check("a head", 5, 1, |client| {
        client.sends(b"GET / HT");
        client.is_in_head();
    });
    check("a head that nobody looks at", 5, 2, |client| client.sends(b"GET / HT"));
    check("a head of HTTP/2", 5, 1, |client| {
        client.guard.speaks_http2(0);
        client.sends(&[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]);
    });
}

#[test]
fn what_may_make_room() {
    let check = |what: &str, after: Option<u64>, awaited: Awaited, begins: fn(&Client)| {
        let client = Client::new();
        begins(&client);
        let since = client.now.get();
        let may = |client: &Client| client.guard.may_make_room(client.now.get());
        if let Some(after) = after {
            assert_eq!(may(client.pass(after - 1)), None, "{what}, just now");
            assert_eq!(may(client.pass(1)), Some((awaited, since)), "{what}");
            client.guard.make_room(client.now.get());
        }
        client.wait(10);
        assert_eq!(may(&client), None, "{what}");
    };
    let served = |client: &Client| {
        client.sends(b"GET / HTTP/1.1\r\n\r\n");
        client.guard.request_begins();
    };
    check("who asks for nothing", Some(1_000), Awaited::Request, |_| {});
    check("a head", Some(2_000), Awaited::Head, |client| {
        client.sends(b"GET / HT");
        client.is_in_head();
    });
    check("a handshake", Some(2_000), Awaited::Handshake, |client| {
        client.sends(b"\x16\x03\x01");
        client.guard.shakes_hands(client.now.get());
    });
    check("a request", None, Awaited::Request, served);
    check("an answer that is stuck", None, Awaited::Request, |client| {
        client.guard.request_begins();
        client.request_ends();
        let _ = client.guard.sending(Poll::<()>::Pending);
    });
    check("an answer that was stuck", Some(1_000), Awaited::Request, |client| {
        client.guard.request_begins();
        let _ = client.guard.sending(Poll::<()>::Pending);
        let _ = client.guard.sending(Poll::Ready(()));
        client.request_ends();
    });
    check("a head beside a request", None, Awaited::Head, |client| {
        client.guard.speaks_http2(0);
        client.sends(&[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x82, 0, 0, 1, 1, 0, 0, 0, 0, 3, 0x82]);
        client.guard.request_begins();
    });
}

/// What has waited for long behind heads, however it is called.
#[test]
fn who_holds_much_behind_a_head_keeps_heads_out() {
    let check = |what: &str, begins: fn(&Client)| {
        let client = Client::new();
        client.wait(10);
        begins(&client);
        assert!(client.guard.is_counted(), "{what}");
        client.wait(2);
        assert!(
            !client.guard.keeps_heads_out(client.now.get() - Duration::from_millis(1)),
            "{what}, just now"
        );
        client.wait(1);
        assert!(client.guard.keeps_heads_out(client.now.get()), "{what}");
        client.guard.cut();
        assert!(!client.guard.keeps_heads_out(client.now.get()), "{what}, and it is closed");
    };
    check("requests of HTTP/1 sent ahead", |client| {
        client.sends(b"GET / HTTP/1.1\r\n\r\n");
        client.guard.request_begins();
        assert!(client.guard.holds_ahead(10_000));
    });
    check("trailers", |client| {
        client.guard.speaks_http2(0);
        client.sends(&[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x82]);
        client.guard.request_begins();
        let fields = [0x82; 100];
        client.sends(&[&[0, 0, 100, 1, 5, 0, 0, 0, 1][..], &fields].concat());
    });
}

/// A handshake has a time of its own, and what was read for it is no head.
#[test]
fn a_handshake_is_no_slow_head() {
    let client = Client::new();
    client.sends(b"\x16\x03\x01");
    client.is_in_head();
    client.guard.shakes_hands(client.now.get());
    assert_eq!(client.wait(60), None);
    client.guard.secured(client.now.get());
    assert_eq!(client.wait(60), Some((20, Closing::Idle)));
}

#[test]
fn an_http2_connection_is_idle_though_it_pings() {
    let client = Client::new();
    client.guard.speaks_http2(0);
    for _ in 0..19 {
        client.sends(&[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
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
    client.sends(&[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]);
    assert_eq!(client.wait(60), Some((5, SLOW)));
}

#[test]
fn a_flood_closes_at_once() {
    let client = Client::new();
    client.guard.speaks_http2(0);
    for _ in 0..=Limits::default().http2_control_frames_max {
        client.sends(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    }
    assert_eq!(client.guard.closing.get(), Some(Closing::Limit("http2_control_frames_max")));
}

#[test]
fn a_client_that_does_not_read_has_so_many_heads_that_are_cut_and_malformed() {
    let client = Client::new();
    client.guard.speaks_http2(0);
    for count in 0..=h2_settings::ERROR_RESETS_MAX {
        assert_eq!(client.guard.exceeded(), None, "{count}");
        let stream = 2 * u32::try_from(count).unwrap() + 1;
        let frame =
            |kind, flags, field| [&[0, 0, 1, kind, flags], &stream.to_be_bytes()[..], &[field]].concat();
        client.sends(&[frame(1, 0, 0x82), frame(9, 4, 0x84)].concat());
        assert!(client.guard.has_left_out(|| (stream, 1)), "{count}");
        assert!(!client.guard.has_left_out(|| (stream, 1)), "{count}");
    }
    assert_eq!(client.guard.exceeded(), Some("http2_reset_frames_max"));
}
