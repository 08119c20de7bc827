//! Servers of a gateway for one family of addresses, and for both.

use super::{gateway, http, mesh};

/// Servers of one port have routes of their own where their addresses are not the same; who names an address of IPv6 has it, and
/// who names all of IPv4 has no more.
#[test]
fn servers_for_each_family() {
    let check = |ips: &[&str], binds: &[&str], listeners: &[&str], routes: &[&str]| {
        let server = |(bind, host): (&&str, &str)| format!("{{bind: '{bind}', {}", &http(host)[1..]);
        let servers: Vec<String> = binds.iter().zip(["a.b", "c.d"]).map(server).collect();
        let redirecting = servers.join(", ").replace("]}", "], tls: {httpsRedirect: true}}");
        let mut mesh = mesh(&gateway(&redirecting));
        mesh.proxy.ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let output = mesh.compile();
        let made = output.resources.listeners.values().map(|it| {
            let more = it.additional_addresses.iter().map(|it| format!(" {it}"));
            format!("{}{}", it.address, more.collect::<String>())
        });
        assert_eq!(made.collect::<Vec<_>>(), listeners, "{ips:?} {binds:?}");
        let made = output.resources.routes.iter().map(|(name, routes)| {
            let hosts = routes.virtual_hosts.iter().map(|host| format!(" {}", host.name));
            format!("{name}{}", hosts.collect::<String>())
        });
        assert_eq!(made.collect::<Vec<_>>(), routes, "{ips:?} {binds:?}");
    };
    let (v4, v6, both) = (&["10.0.0.7"][..], &["fd00::7"][..], &["10.0.0.7", "fd00::7"][..]);
    let (of_v4, of_v6) = ("0.0.0.0:80", "[::]:80");
    check(v4, &["", "::"], &[of_v4, of_v6], &["http.80 a.b:80", "http.80.:: c.d:80"]);
    check(v4, &["0.0.0.0", "::"], &[of_v4, of_v6], &["http.80.0.0.0.0 a.b:80", "http.80.:: c.d:80"]);
    check(v4, &["", "0.0.0.0"], &[of_v4], &["http.80 a.b:80 c.d:80"]);
    check(v6, &["", "::"], &[of_v6], &["http.80 a.b:80 c.d:80"]);
    check(v6, &["", "0.0.0.0"], &[of_v4, of_v6], &["http.80 a.b:80", "http.80.0.0.0.0 c.d:80"]);
    check(both, &[""], &["0.0.0.0:80 [::]:80"], &["http.80 a.b:80"]);
    check(both, &["", "::"], &[of_v4, of_v6], &["http.80 a.b:80", "http.80.:: c.d:80"]);
    check(both, &["0.0.0.0"], &[of_v4], &["http.80.0.0.0.0 a.b:80"]);
    check(both, &["0.0.0.0", "::"], &[of_v4, of_v6], &["http.80.0.0.0.0 a.b:80", "http.80.:: c.d:80"]);
    check(
        both,
        &["fd00::7", ""],
        &["0.0.0.0:80 [::]:80", "[fd00::7]:80"],
        &["http.80 c.d:80", "http.80.fd00::7 a.b:80"],
    );
}
