//! Handshakes in one table: where a client comes to, what it shows and offers, and for which name it asks; what becomes of its
//! connection; and that the explanation of the running proxy says the same of it, with the same reason.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

mod certificates;
mod places;
mod table;
mod talk;

use std::collections::BTreeMap;

use http::Method;
use serde_json::Value;
use support::{Request, TestProxy};

use self::certificates::Shown;
use self::places::{Mode, Places};
use self::table::TABLE;

/// The fewest handshakes that are a table.
const ROWS_MIN: usize = 80;

/// The word for a connection for which there is no chain.
const NO_CHAIN: &str = "filter_chain_not_found";

/// How long it may take until a refusal is counted.
const COUNTED_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

/// The protocols that a client offers; `None` when it speaks plain text.
type Offers = Option<&'static [&'static str]>;

/// For which name a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// That of the place.
    Own,
    /// One that nobody has.
    Other,
    Nothing,
}

/// What becomes of a connection on which HTTP is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// HTTP is served.
    Http,
    /// TLS is terminated, and the bytes behind it are passed on.
    Bytes,
    /// The same, and the client is told first who serves it.
    Exchanged,
    /// The TLS comes to the application as it is.
    Untouched,
    /// It is closed for this reason: a handshake failed, or there is no chain.
    Refused(String),
}

/// One handshake.
#[derive(Debug, Clone, Copy)]
struct Row {
    mode: Mode,
    shown: Shown,
    offers: Offers,
    asks: Asks,
}

impl Row {
    fn server_name(&self) -> Option<&'static str> {
        match self.asks {
            Asks::Own => Some(self.mode.server_name()),
            Asks::Other => Some("nobody.example"),
            Asks::Nothing => None,
        }
    }
}

/// How often connections were closed, by the reason.
async fn refusals(proxy: &TestProxy) -> BTreeMap<String, u64> {
    let page = proxy.page("/stats/prometheus").await;
    let mut refusals = BTreeMap::new();
    for line in page.lines() {
        let Some((series, count)) = line.rsplit_once(' ') else { continue };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let reason = match name {
            "envoy_listener_no_filter_chain_match" => NO_CHAIN,
            "weft_listener_tls_handshake_failures_total" => {
                let (_, behind) = labels.split_once("reason=\"").unwrap();
                behind.split('"').next().unwrap()
            }
            _ => continue,
        };
        *refusals.entry(reason.to_owned()).or_default() += count.parse::<u64>().unwrap();
    }
    refusals.retain(|_, count| *count > 0);
    refusals
}

/// What really becomes of it. A connection that is closed must be counted, once, by its reason; no other may be.
async fn made(places: &Places, row: &Row) -> Result<Outcome, String> {
    let proxy = places.at(row.mode);
    let before = refusals(proxy).await;
    let why = match talk::talk(places, row).await {
        Ok(heard) => {
            let now = refusals(proxy).await;
            return if now == before { Ok(heard) } else { Err(format!("{heard:?}, and {now:?} is counted")) };
        }
        Err(why) => why,
    };
    let counted = async {
        loop {
            let now = refusals(proxy).await;
            if now != before {
                return now;
            }
            tokio::task::yield_now().await;
        }
    };
    let now = tokio::time::timeout(COUNTED_WITHIN, counted).await;
    let now = now.map_err(|_| format!("closed ({why}), and nothing is counted"))?;
    let of_before = |reason: &String| before.get(reason).copied().unwrap_or(0);
    let grown: Vec<(&String, u64)> = now
        .iter()
        .map(|(reason, count)| (reason, count - of_before(reason)))
        .filter(|(_, more)| *more > 0)
        .collect();
    match grown.as_slice() {
        [(reason, 1)] => Ok(Outcome::Refused((*reason).clone())),
        grown => Err(format!("closed ({why}), and {grown:?} is counted")),
    }
}

fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() {
            true => encoded.push(char::from(byte)),
            false => encoded.push_str(&format!("%{byte:02x}")),
        }
    }
    encoded
}

/// What the explanation of the running proxy says that becomes of it.
async fn explained(places: &Places, row: &Row) -> Result<Outcome, String> {
    let proxy = places.at(row.mode);
    let (to, way) = (proxy.listener(0), row.mode.way());
    let listener = if way == "inbound" { "inbound" } else { "gateway" };
    let scheme = if row.offers.is_some() { "https" } else { "http" };
    let url = encoded(&format!("{scheme}://{to}/"));
    let mut page = format!(
        "/explain?format=json&way={way}&listener={listener}&destination={to}&url={url}&source=192.0.2.7"
    );
    if let Some(offers) = row.offers {
        page.push_str(&format!("&alpn={}", encoded(&offers.join(","))));
        page.push_str(if offers.contains(&"h2") { "&http2" } else { "" });
        page.push_str(&row.server_name().map(|name| format!("&sni={name}")).unwrap_or_default());
        let shown = places.certificates.get(row.shown);
        page.push_str(&shown.map(|pem| format!("&certificate={}", encoded(&pem.chain))).unwrap_or_default());
    }
    let text = Request::new(Method::POST, &page).send(proxy.admin()).await.text();
    let told: Value = serde_json::from_str(&text).map_err(|_| text.clone())?;
    let step = |steps: &Value, name: &str| {
        steps.as_array().and_then(|steps| steps.iter().find(|step| step["step"] == name)).cloned()
    };
    let what = |step: &Value| step["what"].as_str().unwrap_or_default().to_owned();
    let handshake =
        step(&told["steps"], "tls").and_then(|tls| step(&tls["steps"], "handshake")).map(|step| what(&step));
    let outcome = &told["outcome"];
    let reason = outcome["details"].as_str().unwrap_or_default();
    let said = match (outcome["does"].as_str(), &handshake) {
        (Some("forwards"), _) => Outcome::Http,
        (Some("passes_on"), None) => Outcome::Untouched,
        (Some("passes_on"), Some(how)) if how.contains("agrees on istio-peer-exchange") => Outcome::Exchanged,
        (Some("passes_on"), Some(_)) => Outcome::Bytes,
        (Some("closes"), Some(how)) if how.contains(&format!("({reason})")) => {
            Outcome::Refused(reason.to_owned())
        }
        (Some("closes"), None) if reason == NO_CHAIN => Outcome::Refused(reason.to_owned()),
        _ => return Err(format!("{told:#}")),
    };
    match (&said, &handshake) {
        (Outcome::Refused(_), _) | (_, None) => Ok(said),
        (_, Some(how)) if how.starts_with("succeeds") => Ok(said),
        (_, Some(_)) => Err(format!("{told:#}")),
    }
}

/// Makes a handshake and has it explained; what is not as expected.
async fn check(places: &Places, row: &Row, expected: &Outcome) -> Vec<String> {
    let (made, said) = (made(places, row).await, explained(places, row).await);
    let mut wrong = Vec::new();
    if made.as_ref() != Ok(expected) {
        wrong.push(format!("{row:?}: {expected:?} is expected, and it is {made:?}"));
    }
    if said.as_ref() != Ok(expected) {
        wrong.push(format!("{row:?}: {expected:?} is expected, and explained is {said:?}"));
    }
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_a_handshake_is_as_expected_and_as_explained() {
    let places = Places::start().await;
    let (mut rows, mut refused, mut wrong) = (0, 0, Vec::new());
    for (modes, shown, offers, asks, expected) in TABLE {
        let expected = expected.outcome();
        for mode in modes.iter().copied() {
            for shown in shown.iter().copied() {
                for offers in offers.iter().copied() {
                    for asks in asks.iter().copied() {
                        let row = Row { mode, shown, offers, asks };
                        wrong.extend(check(&places, &row, &expected).await);
                        rows += 1;
                        refused += usize::from(matches!(expected, Outcome::Refused(_)));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {rows}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(rows >= ROWS_MIN, "{rows}");
    println!("{rows} handshakes are made and explained, {refused} of them refused");
}
