//! A text to ProxyConfig alone: the annotation of a Pod, and what the injector puts into the container's environment.

use std::fmt::Write as _;

use super::ProxyConfig;
use super::fields::{Fate, PROXY_CONFIG};
use super::read::{is_harmless, is_unknown, read_known};
use crate::yaml::tree::{Node, Value};
use crate::yaml::typed::{self, Unknown};
use crate::yaml::{Limits, Path, Problem, Problems, build, documents};

/// The annotation of a Pod that holds the settings of its proxy.
pub const PROXY_CONFIG_ANNOTATION: &str = "proxy.istio.io/config";

/// The annotation of a Pod that says how its traffic comes to its proxy. It wins over the settings.
pub const INTERCEPTION_MODE_ANNOTATION: &str = "sidecar.istio.io/interceptionMode";

/// What a text that holds a ProxyConfig says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ProxyConfigRead {
    /// The settings.
    pub config: ProxyConfig,
    /// Fields written that weft does not honour yet.
    pub not_honoured: Vec<String>,
    /// What is said of fields that there are not, which are passed over as the agent of Istio does.
    pub unknown: Vec<String>,
}

/// Reads `text`, YAML or JSON. A text that says nothing holds for one without fields.
///
/// # Errors
///
/// When it is no ProxyConfig of Istio's: what is wrong, in one line.
pub fn read_proxy_config(text: &str) -> Result<ProxyConfigRead, String> {
    let mut documents = documents(text);
    let (Some(document), None) = (documents.next(), documents.next()) else {
        return if text.trim().is_empty() {
            Ok(ProxyConfigRead::default())
        } else {
            Err("it is several documents".into())
        };
    };
    let built = build(&document, &Limits::DEFAULT).map_err(|broken| told(&[broken.problem], 1))?;
    let Some(root) = built.root.filter(|root| !root.is_null()) else { return Ok(ProxyConfigRead::default()) };
    let mut problems = built.problems;
    if !matches!(root.value, Value::Mapping(_)) {
        return Err("it is not a mapping".into());
    }
    let names: Vec<&str> = PROXY_CONFIG.iter().map(|(name, _)| *name).collect();
    let mut found = problems.fresh();
    typed::unknown_fields(&root, &Path::Root, &names, &mut found);
    let are_passed_over = |found: &Problems| found.told().iter().all(is_unknown);
    let strictly = Unknown::RefusedExceptIn(&[""]);
    let (config, passed_over) =
        read_known::<ProxyConfig>(&root, strictly, found, are_passed_over, &mut problems, &Limits::DEFAULT);
    let Some(config) = config.filter(|_| problems.is_empty()) else {
        return Err(told(problems.told(), problems.count()));
    };
    if let Some(negative) = config.concurrency.filter(|concurrency| *concurrency < 0) {
        return Err(format!("concurrency: {negative} is not a number of workers"));
    }
    let unknown = passed_over.told().iter().map(|it| told(std::slice::from_ref(it), 1)).collect();
    Ok(ProxyConfigRead { config, not_honoured: not_honoured(&root), unknown })
}

fn not_honoured(root: &Node<'_>) -> Vec<String> {
    let is_lost = |key: &str, value: &Node<'_>| {
        let fate = PROXY_CONFIG.iter().find(|(name, _)| *name == key).map(|(_, fate)| *fate);
        matches!(fate, Some(Fate::NotHonoured(harmless)) if !is_harmless(value, harmless))
    };
    let lost = root.entries().iter().filter(|entry| is_lost(&entry.key, &entry.value));
    lost.map(|entry| entry.key.to_string()).collect()
}

/// The first problem, and how many more there are.
fn told(problems: &[Problem], count: usize) -> String {
    let mut text = String::new();
    if let Some(first) = problems.first() {
        let place = if first.path.is_empty() { String::new() } else { format!(", {}", first.path) };
        let _ = write!(text, "line {}{place}: {}; {}", first.line, first.what, first.remedy);
    }
    if count > 1 {
        let _ = write!(text, " (and {} more)", count - 1);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_text_says() {
        let check = |text: &str, concurrency: Option<i32>, not_honoured: &[&str]| {
            let read = read_proxy_config(text).unwrap();
            assert_eq!(
                (read.config.concurrency, read.not_honoured.as_slice()),
                (concurrency, &*not_honoured.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()),
                "{text}"
            );
        };
        check("", None, &[]);
        check("{}", None, &[]);
        check("{}\n", None, &[]);
        check("concurrency: 0\n", Some(0), &[]);
        check("concurrency: null\n", None, &[]);
        check("{\"concurrency\":2,\"proxyMetadata\":{\"A\":\"b\"},\"statusPort\":15020}", Some(2), &[]);
        check("concurrency: 2\ntracing: {sampling: 5}\n", Some(2), &["tracing"]);
        check("gatewayTopology: {numTrustedProxies: 2}", None, &[]);
        check("gatewayTopology: {proxyProtocol: {}}", None, &[]);
    }

    #[test]
    fn fields_that_there_are_not_are_told_and_passed_over() {
        let read = read_proxy_config("{concurrency: 1, concurency: 2, gatewayTopology: {hops: 1}}").unwrap();
        assert_eq!(read.config.concurrency, Some(1));
        let expected = "line 1, concurency: there is no field `concurency` here; did you mean `concurrency`?";
        assert_eq!((read.unknown.len(), read.unknown[0].as_str()), (2, expected));
        assert!(read.unknown[1].starts_with("line 1, gatewayTopology.hops: "), "{:?}", read.unknown);
    }

    #[test]
    fn what_is_no_proxy_config_is_told() {
        let check =
            |text: &str, expected: &str| assert_eq!(read_proxy_config(text).unwrap_err(), expected, "{text}");
        check("concurrency: -1", "concurrency: -1 is not a number of workers");
        let hops = read_proxy_config("gatewayTopology: {numTrustedProxies: -1}").unwrap_err();
        assert!(hops.starts_with("line 1, gatewayTopology.numTrustedProxies: "), "{hops}");
        check("[]", "it is not a mapping");
        check("{}\n---\n{}\n", "it is several documents");
        let wrong = read_proxy_config("a: 1\nb: 2\nconcurrency: many").unwrap_err();
        assert!(wrong.starts_with("line 1, a: ") && wrong.ends_with("(and 2 more)"), "{wrong}");
        assert!(read_proxy_config("a: [").unwrap_err().starts_with("line 1"));
    }
}
