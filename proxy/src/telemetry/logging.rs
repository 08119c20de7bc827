//! What the process logs of itself, and how that is changed while it runs. Semantics: Envoy's `/logging`.
//!
//! The filter of the command line holds until all levels are set at once; levels of single loggers lie over it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use super::stderr::Lines;

/// The parts of weft that log: modules of this crate.
pub(crate) const LOGGERS: [&str; 13] = [
    "admin",
    "agent",
    "app",
    "cli",
    "control",
    "engine",
    "http",
    "listener",
    "net",
    "tcp",
    "telemetry",
    "upstream",
    "worker",
];

/// Puts a filter in the place of the one before.
type Reload = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// The levels of the process's own log. Shared by who asks and who sets; the filter itself is the log's.
pub struct Logging {
    reload: Reload,
    levels: ArcSwap<Levels>,
    /// Where it is written; `None` where whoever logs writes it.
    lines: Option<Lines>,
}

impl fmt::Debug for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logging").field("levels", &self.levels.load()).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Default)]
struct Levels {
    /// A filter as `--log` takes it.
    base: String,
    /// Of single loggers.
    own: BTreeMap<&'static str, LevelFilter>,
}

impl Logging {
    /// Of a log whose filter is `base` and is replaced by `reload`, and which is written by `lines`.
    pub(crate) fn new(
        base: &str,
        reload: impl Fn(EnvFilter) -> Result<(), String> + Send + Sync + 'static,
        lines: Option<Lines>,
    ) -> Arc<Logging> {
        let levels = Levels { base: base.to_owned(), own: BTreeMap::new() };
        Arc::new(Logging { reload: Box::new(reload), levels: ArcSwap::from_pointee(levels), lines })
    }

    /// Lines that were lost because nobody read them.
    pub(crate) fn lost(&self) -> u64 {
        self.lines.as_ref().map_or(0, Lines::lost)
    }

    /// Sets the level of everything, also of what others wrote.
    pub(crate) fn set_all(&self, level: LevelFilter) -> Result<(), String> {
        self.apply(Levels { base: level.to_string().to_ascii_lowercase(), own: BTreeMap::new() })
    }

    /// Sets the level of these loggers.
    pub(crate) fn set(&self, levels: &[(&'static str, LevelFilter)]) -> Result<(), String> {
        let mut changed = Levels::clone(&self.levels.load());
        changed.own.extend(levels.iter().copied());
        self.apply(changed)
    }

    fn apply(&self, levels: Levels) -> Result<(), String> {
        let text = levels.filter();
        let filter = EnvFilter::try_new(&text).map_err(|error| error.to_string())?;
        (self.reload)(filter)?;
        self.levels.store(Arc::new(levels));
        Ok(())
    }

    /// Each logger and its level, in the names of Envoy.
    pub(crate) fn levels(&self) -> Vec<(&'static str, &'static str)> {
        let levels = self.levels.load();
        LOGGERS.into_iter().map(|name| (name, level_name(levels.of(name)))).collect()
    }

    /// The whole filter, as `--log` takes it.
    pub(crate) fn filter(&self) -> String {
        self.levels.load().filter()
    }
}

impl Levels {
    fn filter(&self) -> String {
        let own = self.own.iter().map(|(name, level)| format!(",weft::{name}={level}"));
        self.base.clone() + &own.collect::<String>()
    }

    /// The level of a logger: its own, or that of the longest directive of the base that names it.
    fn of(&self, logger: &str) -> LevelFilter {
        if let Some(level) = self.own.get(logger) {
            return *level;
        }
        let target = format!("weft::{logger}");
        let named = |name: &str| {
            name.is_empty()
                || target.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        let written = self.base.split(',').map(str::trim).filter(|directive| !directive.is_empty());
        // What a filter without directives shows, and what one without any for this logger does.
        let unnamed = if written.clone().next().is_none() { LevelFilter::ERROR } else { LevelFilter::OFF };
        let directives = written.filter_map(|directive| {
            let (name, level) = match directive.split_once('=') {
                Some((name, level)) => (name, level.parse().ok()?),
                // A level for everything, or a name that logs all.
                None => match directive.parse() {
                    Ok(level) => ("", level),
                    Err(_) => (directive, LevelFilter::TRACE),
                },
            };
            named(name).then_some((name.len(), level))
        });
        directives.max_by_key(|(length, _)| *length).map_or(unnamed, |(_, level)| level)
    }
}

/// The level that Envoy calls so. weft has nothing that is `critical`.
pub(crate) fn level_of(name: &str) -> Option<LevelFilter> {
    Some(match name {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "warning" | "warn" => LevelFilter::WARN,
        "error" => LevelFilter::ERROR,
        "critical" | "off" => LevelFilter::OFF,
        _ => return None,
    })
}

fn level_name(level: LevelFilter) -> &'static str {
    [("trace", LevelFilter::TRACE), ("debug", LevelFilter::DEBUG), ("info", LevelFilter::INFO)]
        .into_iter()
        .chain([("warning", LevelFilter::WARN), ("error", LevelFilter::ERROR)])
        .find(|(_, known)| *known == level)
        .map_or("off", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logging(base: &str) -> Arc<Logging> {
        Logging::new(base, |_| Ok(()), None)
    }

    fn level(logging: &Logging, logger: &str) -> &'static str {
        logging.levels().into_iter().find(|(name, _)| *name == logger).unwrap().1
    }

    #[test]
    fn levels_by_the_filter_of_the_command_line() {
        let check = |base: &str, http: &str, control: &str| {
            let logging = logging(base);
            assert_eq!((level(&logging, "http"), level(&logging, "control")), (http, control), "{base}");
        };
        check("info", "info", "info");
        check("WARN", "warning", "warning");
        check("error,weft::control=off", "error", "off");
        check("weft::http=debug", "debug", "off");
        check("info, weft=debug,weft::control=trace", "debug", "trace");
        check("info,weft::htt=debug,weft", "trace", "trace");
        check("info,", "info", "info");
        check("", "error", "error");
    }

    #[test]
    fn levels_that_are_set() {
        let logging = logging("info,weft::http=debug");
        logging.set(&[("http", LevelFilter::OFF), ("worker", LevelFilter::TRACE)]).unwrap();
        assert_eq!(logging.filter(), "info,weft::http=debug,weft::http=off,weft::worker=trace");
        assert_eq!(
            (level(&logging, "http"), level(&logging, "worker"), level(&logging, "app")),
            ("off", "trace", "info")
        );
        logging.set_all(LevelFilter::WARN).unwrap();
        assert_eq!((logging.filter().as_str(), level(&logging, "http")), ("warn", "warning"));
    }

    #[test]
    fn a_filter_that_is_not_taken_changes_nothing() {
        let logging = Logging::new("info", |_| Err("no".to_owned()), None);
        assert_eq!(logging.set_all(LevelFilter::OFF), Err("no".to_owned()));
        assert_eq!(level(&logging, "http"), "info");
    }

    /// Every part that logs has its name in the list.
    #[test]
    fn all_loggers_are_known() {
        fn logs(path: &std::path::Path) -> bool {
            if path.is_dir() {
                return std::fs::read_dir(path).unwrap().any(|entry| logs(&entry.unwrap().path()));
            }
            let text = std::fs::read_to_string(path).unwrap();
            ["error!(", "warn!(", "info!(", "debug!(", "trace!("]
                .iter()
                .any(|level| text.contains(&format!("tracing::{level}")))
        }
        let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for entry in std::fs::read_dir(source).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            assert!(!logs(&path) || LOGGERS.contains(&name.as_str()), "{name} logs and is not in LOGGERS");
        }
    }
}
