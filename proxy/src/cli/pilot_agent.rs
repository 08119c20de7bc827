//! The command line of the Istio agent, so that a pod spec which Istio's injector wrote runs weft unchanged. Whatever has a
//! meaning for weft becomes an argument of weft's; what has none is accepted where the injector writes it, and said.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Parser;

use super::{Arguments, Command, redirect, request, wait};

/// What it is called.
const NAME: &str = "pilot-agent";

/// Where the configuration is when `WEFT_CONFIG` does not say it.
const CONFIG_DEFAULT: &str = "/etc/weft";

/// Ports of a pod, and the variables by which the injector has others.
const STATUS_PORT: &str = "15020";
const HEALTH_PORT: (&str, &str) = ("ENVOY_STATUS_PORT", "15021");
const PROMETHEUS_PORT: (&str, &str) = ("ENVOY_PROMETHEUS_PORT", "15090");

/// weft by the name and with the arguments of the Istio agent.
#[derive(Debug, Parser)]
#[command(name = NAME, version, arg_required_else_help = true, after_help = EXAMPLES)]
struct PilotAgent {
    #[command(subcommand)]
    command: AgentCommand,
    #[command(flatten)]
    log: Log,
}

/// Istio's logging flags.
#[derive(Debug, Clone, clap::Args)]
struct Log {
    /// Levels of the agent's log by scope, as SCOPE:LEVEL,...; weft has one scope, `default`.
    #[arg(long = "log_output_level", global = true, value_name = "SCOPE:LEVEL")]
    output_level: Option<String>,

    /// weft logs text.
    #[arg(long = "log_as_json", global = true)]
    as_json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum AgentCommand {
    /// Run the proxy of a pod: as weft run with Istio's ports.
    Proxy(Proxy),
    /// Wait until the proxy is ready.
    Wait(wait::Arguments),
    /// Ask a proxy of this host.
    Request(request::Arguments),
    /// Apply redirect rules: as weft redirect apply.
    IstioIptables(Box<crate::agent::redirect::Arguments>),
}

/// What the injector's templates write; anything else is refused by name.
#[derive(Debug, clap::Args)]
struct Proxy {
    /// Which proxy it is.
    #[arg(value_enum, default_value_t = Role::Sidecar)]
    role: Role,

    /// DNS domain of the pod's services; weft takes it from the configuration.
    #[arg(long)]
    domain: Option<String>,

    /// Level of the proxy's log, with scopes or without: `warning,misc:error`.
    #[arg(long = "proxyLogLevel", value_name = "LEVEL")]
    proxy_log_level: Option<String>,

    /// Levels of parts of Envoy, which weft has not.
    #[arg(long = "proxyComponentLogLevel", value_name = "SCOPE:LEVEL")]
    proxy_component_log_level: Option<String>,

    /// Number of workers; 0 leaves it to the configuration.
    #[arg(long, value_name = "N")]
    concurrency: Option<u16>,

    /// MeshConfig.
    #[arg(long = "meshConfig", value_name = "FILE")]
    mesh_config: Option<String>,

    /// Cluster of the node; weft takes it from the workload.
    #[arg(long = "serviceCluster")]
    service_cluster: Option<String>,

    /// Port of the agent's server for the exchange of tokens, which weft has not; 0 is none for Istio too.
    #[arg(long = "stsPort", value_name = "PORT")]
    sts_port: Option<u16>,

    /// Where Envoy logs which hosts it ejects; weft has no such log.
    #[arg(long = "outlierLogPath", value_name = "FILE")]
    outlier_log_path: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    Sidecar,
    Router,
}

const EXAMPLES: &str = "\
The configuration is read from the directories and files in WEFT_CONFIG, separated by colons; /etc/weft when it is not set.

Examples:
  pilot-agent proxy sidecar --domain shop.svc.cluster.local --proxyLogLevel=warning --log_output_level=default:info
  pilot-agent wait
  pilot-agent request --debug-port=15020 POST drain
  pilot-agent istio-iptables -p 15001 -z 15006 -u 1337 -m REDIRECT -i '*' -x '' -b '*' -d 15090,15021,15020";

/// The arguments of the Istio agent, program first, if it is by its name that weft was called.
pub(super) fn arguments_of(given: &[OsString]) -> Option<&[OsString]> {
    let program = Path::new(given.first()?).file_name().and_then(OsStr::to_str)?;
    if program.ends_with(NAME) {
        return Some(given);
    }
    let rest = given.get(1..)?;
    (rest.first()? == NAME).then_some(rest)
}

/// Reads them. As with weft's own, what is wrong ends the process.
pub(super) fn parse(given: &[OsString]) -> Arguments {
    let PilotAgent { command, log } = PilotAgent::parse_from(given);
    let level = log.level();
    let own = |command| Arguments { command, log: Some(level.to_owned()) };
    match command {
        AgentCommand::Wait(arguments) => own(Command::Wait(arguments)),
        AgentCommand::Request(arguments) => own(Command::Request(arguments)),
        AgentCommand::IstioIptables(arguments) => {
            own(Command::Redirect(Box::new(redirect::Arguments::applying(*arguments))))
        }
        AgentCommand::Proxy(proxy) => {
            for what in log.without_meaning().into_iter().chain(proxy.without_meaning()) {
                eprintln!("{NAME}: {what} has no effect");
            }
            let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
            Arguments::read(proxy.of_weft(level, variable))
        }
    }
}

impl Log {
    /// weft's level: that of the default scope.
    fn level(&self) -> &'static str {
        let levels = self.output_level.as_deref().unwrap_or_default().split(',');
        let mut default = levels.filter_map(|level| match level.split_once(':') {
            Some(("default" | "all", level)) => Some(level),
            Some(_) => None,
            None => Some(level),
        });
        default.next_back().and_then(own_level).unwrap_or("info")
    }

    fn without_meaning(&self) -> Vec<String> {
        let levels = self.output_level.as_deref().unwrap_or_default().split(',');
        let others = levels.filter(|level| {
            level.split_once(':').is_some_and(|(scope, _)| !matches!(scope, "default" | "all"))
        });
        let mut found: Vec<String> = others.map(|level| format!("--log_output_level {level}")).collect();
        if self.as_json {
            found.push("--log_as_json".to_owned());
        }
        found
    }
}

/// weft's level for one of Istio's or Envoy's.
fn own_level(level: &str) -> Option<&'static str> {
    Some(match level {
        "trace" => "trace",
        "debug" => "debug",
        "info" => "info",
        "warn" | "warning" => "warn",
        "error" | "err" | "critical" | "fatal" => "error",
        "off" | "none" => "off",
        _ => return None,
    })
}

/// From the quietest.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl Proxy {
    /// weft's arguments. One log stands for the agent's and for Envoy's: the more talkative of the two decides.
    fn of_weft(&self, level: &str, variable: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let rank = |level: &str| LEVELS.iter().position(|known| *known == level);
        let proxy_level =
            self.proxy_log_level.as_deref().and_then(|levels| own_level(levels.split(',').next()?));
        let level = proxy_level.filter(|proxy| rank(proxy) > rank(level)).unwrap_or(level);
        let mode = match self.role {
            Role::Sidecar => "sidecar",
            Role::Router => "gateway",
        };
        let mut arguments: Vec<String> =
            ["weft", "--log", level, "run", "--mode", mode].map(str::to_owned).into();
        let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        let config = variable("WEFT_CONFIG").unwrap_or_else(|| CONFIG_DEFAULT.to_owned());
        config.split(':').for_each(|path| add("--config", path.to_owned()));
        add("--status-port", STATUS_PORT.to_owned());
        for (flag, (name, default)) in
            [("--health-port", HEALTH_PORT), ("--prometheus-port", PROMETHEUS_PORT)]
        {
            add(flag, variable(name).unwrap_or_else(|| default.to_owned()));
        }
        if let Some(workers) = self.concurrency.filter(|workers| *workers > 0) {
            add("--workers", workers.to_string());
        }
        if let Some(file) = &self.mesh_config {
            add("--mesh-config", file.clone());
        }
        if variable("WEFT_ALLOW_UNENFORCED_SECURITY").is_some_and(|text| text == "true") {
            arguments.push("--allow-unenforced-security".to_owned());
        }
        arguments
    }

    fn without_meaning(&self) -> Vec<String> {
        let components =
            self.proxy_component_log_level.iter().map(|level| format!("--proxyComponentLogLevel {level}"));
        let cluster = self.service_cluster.iter().map(|name| format!("--serviceCluster {name}"));
        let domain = self
            .domain
            .iter()
            .filter(|domain| !domain.contains(".svc."))
            .map(|domain| format!("--domain {domain}: the domain of services is cluster.local; it"));
        let tokens = self.sts_port.iter().filter(|port| **port != 0).map(|port| format!("--stsPort {port}"));
        let outliers = self.outlier_log_path.iter().filter(|path| !path.is_empty());
        let outliers = outliers.map(|path| format!("--outlierLogPath {path}"));
        components.chain(cluster).chain(domain).chain(tokens).chain(outliers).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn names() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(arguments_of(&os(text)), expected.map(os).as_deref(), "{text}");
        };
        check("weft run", None);
        check("weft", None);
        check("/usr/local/bin/pilot-agent proxy", Some("/usr/local/bin/pilot-agent proxy"));
        check("pilot-agent", Some("pilot-agent"));
        check("weft pilot-agent wait", Some("pilot-agent wait"));
        check("weft wait pilot-agent", None);
    }

    #[test]
    fn what_the_injector_writes() {
        let check = |text: &str, variables: &[(&str, &str)], expected: &str, silent: &[&str]| {
            let parsed = PilotAgent::try_parse_from(os(&format!("pilot-agent proxy {text}"))).unwrap();
            let AgentCommand::Proxy(proxy) = parsed.command else { return assert_eq!(text, "") };
            let variable = |name: &str| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            };
            let arguments = proxy.of_weft(parsed.log.level(), variable);
            assert_eq!(arguments.join(" "), expected, "{text}");
            let without: Vec<String> =
                parsed.log.without_meaning().into_iter().chain(proxy.without_meaning()).collect();
            assert_eq!(without, silent, "{text}");
            // They are weft's.
            Arguments::try_parse_from(arguments).unwrap();
        };
        let ports = "--status-port 15020 --health-port 15021 --prometheus-port 15090";
        check(
            "sidecar --domain shop.svc.cluster.local --proxyLogLevel=warning --proxyComponentLogLevel=misc:error \
             --log_output_level=default:info",
            &[],
            &format!("weft --log info run --mode sidecar --config /etc/weft {ports}"),
            &["--proxyComponentLogLevel misc:error"],
        );
        check(
            "router --domain shop.svc.cluster.local --proxyLogLevel=debug,misc:error --log_output_level=dns:debug",
            &[("WEFT_CONFIG", "/a:/b")],
            &format!("weft --log debug run --mode gateway --config /a --config /b {ports}"),
            &["--log_output_level dns:debug"],
        );
        check(
            "sidecar --concurrency 2 --proxyLogLevel error --log_output_level default:warn --log_as_json",
            &[
                ("ENVOY_STATUS_PORT", "1"),
                ("ENVOY_PROMETHEUS_PORT", "2"),
                ("WEFT_ALLOW_UNENFORCED_SECURITY", "true"),
            ],
            "weft --log warn run --mode sidecar --config /etc/weft --status-port 15020 --health-port 1 --prometheus-port 2 \
             --workers 2 --allow-unenforced-security",
            &["--log_as_json"],
        );
        check(
            "sidecar --stsPort=15463 --outlierLogPath=/x",
            &[],
            &format!("weft --log info run --mode sidecar --config /etc/weft {ports}"),
            &["--stsPort 15463", "--outlierLogPath /x"],
        );
        check(
            "sidecar --stsPort=0 --outlierLogPath=",
            &[],
            &format!("weft --log info run --mode sidecar --config /etc/weft {ports}"),
            &[],
        );
        for bad in ["waypoint", "sidecar --novel x", "sidecar --stsPort x"] {
            assert!(PilotAgent::try_parse_from(os(&format!("pilot-agent proxy {bad}"))).is_err(), "{bad}");
        }
    }
}
