use std::collections::HashMap;
use std::net::IpAddr;

use clap::Parser as _;

use super::*;

#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    arguments: Arguments,
}

fn host(variables: &[(&str, &str)]) -> Host {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Host {
        variables: variables.iter().map(owned).collect::<HashMap<_, _>>(),
        addresses: Ok(vec![IpAddr::from([10, 244, 1, 10])]),
        resolvers: Err("/etc/resolv.conf: there is none".to_owned()),
        users: String::new(),
    }
}

fn settings(arguments: &[&str], host: &Host) -> Result<Settings, String> {
    let command = [&["redirect"], arguments].concat();
    Settings::new(&Command::try_parse_from(command).expect("known arguments").arguments, host)
}

#[test]
fn what_cannot_be_part_of_a_rule_is_refused_by_name() {
    let check = |arguments: &[&str], variables: &[(&str, &str)], expected: &str| {
        let why = settings(arguments, &host(variables)).expect_err(expected);
        assert!(why.starts_with(expected), "{arguments:?} {variables:?}: {why}");
    };
    check(&["-p", "0"], &[], "-p: `0`: is not a port");
    check(&["-p", "65536"], &[], "-p: `65536`: is not a port");
    check(&[], &[("INBOUND_CAPTURE_PORT", "")], "$INBOUND_CAPTURE_PORT: ``: is not a port");
    check(&["-z", "15001"], &[], "-z: `15001`: is where outbound connections go (-p)");
    check(&["-p", "15006"], &[], "-z: `15006`: is where outbound connections go (-p)");
    check(&["-b", "80,*"], &[], "-b: `80,*`: `*` is not a port");
    check(&["-b", "80:90"], &[], "-b: `80:90`: `80:90` is not a port");
    check(&["-b", "80", "-d", "x"], &[], "-d: `x`: `x` is not a port");
    check(&["-o", "80 -j ACCEPT"], &[], "-o: `80 -j ACCEPT`: `80 -j ACCEPT` is not a port");
    check(&["-u", "1337 -j ACCEPT"], &[], "-u: ");
    check(&["-u", "1337\n-A OUTPUT"], &[], "-u: ");
    check(&["-g", "01"], &[], "-g: `01`: `01` is not a user or group");
    check(&["-u", "0x539"], &[], "-u: ");
    check(&["-c", "eth0 -j"], &[], "-c: ");
    check(&["-c", "a-name-too-long0"], &[], "-c: ");
    check(&["-k", "\"; flush ruleset; \""], &[], "-k: ");
    check(&["-i", "10.0.0.0"], &[], "-i: `10.0.0.0`: `10.0.0.0` is not a range of addresses");
    check(&["-i", "10.0.0.0/33"], &[], "-i: ");
    check(&["-i", "10.0.0.0/+8"], &[], "-i: ");
    check(&["-i", "fd00::/129"], &[], "-i: ");
    check(&["-x", "*"], &[], "-x: `*`: `*` is not a range of addresses");
    check(&["-m", "tproxy"], &[], "-m: `tproxy`: is not a mode; write REDIRECT or TPROXY");
    check(&["-t", "0"], &[], "-t: `0`: is not a mark");
    check(&["-r", "254"], &[], "-r: `254`: is not a routing table of one's own");
    check(&["--redirect-dns=yes"], &[], "--redirect-dns: `yes`: is neither true nor false");
    check(&[], &[("DUAL_STACK", "2")], "$DUAL_STACK: `2`: is neither true nor false");
    let logging = ": `true`: no rule logs packets here";
    check(&["--iptables-trace-logging"], &[], &format!("--iptables-trace-logging{logging}"));
    check(&[], &[("IPTABLES_TRACE_LOGGING", "true")], &format!("$IPTABLES_TRACE_LOGGING{logging}"));
    let cleans = settings(&["--cleanup-only"], &host(&[("IPTABLES_TRACE_LOGGING", "true")]));
    assert!(cleans.is_ok(), "{:?}", cleans.err());
    check(&["--probe-timeout", "5"], &[], "--probe-timeout: `5`: ");
    check(&["--force-iptables-binary", "old"], &[], "--force-iptables-binary: `old`: ");
    check(
        &[],
        &[("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "10.0.0.0/8")],
        "$ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR: ",
    );
    check(
        &[],
        &[("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "127.0.0.1/4")],
        "$ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR: ",
    );
    let groups = (1..=65).map(|group| group.to_string()).collect::<Vec<_>>().join(",");
    check(&[], &[("ISTIO_OUTBOUND_OWNER_GROUPS", &groups)], "$ISTIO_OUTBOUND_OWNER_GROUPS: ");
    check(&["--redirect-dns"], &[], "/etc/resolv.conf: there is none");
}

#[test]
fn a_host_without_a_network_is_refused() {
    let lonely = Host { addresses: Ok(vec![IpAddr::from([127, 0, 0, 1])]), ..host(&[]) };
    let why = settings(&[], &lonely).expect_err("no addresses");
    assert!(why.starts_with("no interface has an address"), "{why}");
    let removal =
        settings(&["--cleanup-only", "--redirect-dns"], &lonely).expect("rules can be removed still");
    assert!(removal.cleanup_only && removal.dns.is_none());
}

#[test]
fn the_last_of_equal_arguments_counts() {
    let settings = settings(&["-p", "1", "-p", "2", "--reconcile", "--reconcile=false"], &host(&[]));
    let settings = settings.expect("settings");
    assert_eq!((settings.proxy_port, settings.reconcile), (2, false));
}

#[test]
fn how_it_is_run_is_said_too() {
    let check = |arguments: &[&str], variables: &[(&str, &str)], holds: fn(&Settings) -> bool| {
        let settings = settings(arguments, &host(variables)).expect("settings");
        assert!(holds(&settings), "{arguments:?} {variables:?}: {settings:?}");
    };
    check(&["-n"], &[], |settings| settings.dry_run);
    check(&[], &[("DRY_RUN", "1")], |settings| settings.dry_run);
    check(&["--skip-rule-apply", "--run-validation"], &[], |s| s.skip_rule_apply && s.run_validation);
    check(&[], &[("CLEANUP_ONLY", "true"), ("FORCE_APPLY", "T")], |s| s.cleanup_only && s.force_apply);
    check(&["--probe-timeout", "800ms", "--iptables-probe-port", "16002"], &[], |settings| {
        settings.probe_timeout == Duration::from_millis(800) && settings.probe_port == 16002
    });
    check(&["--iptables-trace-logging=false"], &[], |settings| settings.backend == Backend::Iptables(None));
    check(&["--native-nftables"], &[], |settings| settings.backend == Backend::Nftables);
    check(&[], &[("FORCE_IPTABLES_BINARY", "legacy")], |settings| {
        settings.backend == Backend::Iptables(Some(Variant::Legacy))
    });
    // A Service called envoy puts a variable of that name into every pod of its namespace.
    check(&[], &[("ENVOY_PORT", "tcp://10.96.0.1:80")], |settings| settings.proxy_port == 15001);
    let arguments = Command::try_parse_from(["redirect"]).expect("no arguments").arguments;
    let inside = Settings::network_namespace(&arguments, &host(&[("NETWORK_NAMESPACE", "/run/netns/a")]));
    assert_eq!(inside, Some("/run/netns/a".into()));
}

#[test]
fn blanks_beside_commas_count_for_nothing() {
    let ports = |text: &str| settings(&["-b", text], &host(&[])).expect("ports").inbound;
    assert_eq!(ports("8080, 9090 ,"), InboundPorts::Only(vec![8080, 9090]));
}
