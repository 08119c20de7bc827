//! Hosts that several ServiceEntry objects declare.

use super::*;

const PORT: &str = "ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC";

/// What is said of two entries of `db.test`, `a` of namespace `shop` and `b`, whose fields are these.
#[track_caller]
fn check_both(one: &str, namespace: &str, other: &str, expected: &[&str]) {
    let made = |name: &str, namespace: &str, spec: &str| {
        object("ServiceEntry", name, namespace, &format!("hosts: [db.test], {spec}"))
    };
    check(&[made("a", "shop", one), made("b", namespace, other)], expected);
    let mut store = Store::new();
    store.read("a.yaml", &made("a", "shop", one));
    store.read("b.yaml", &made("b", namespace, other));
    for finding in references(&store.objects(), &Limits::DEFAULT) {
        let text = finding.to_string();
        assert!(text.contains("ServiceEntry shop/a (a.yaml:1)") && text.contains("b.yaml:"), "{text}");
    }
}

#[test]
fn what_is_not_taken_together() {
    let of_shop = ["conflicting-host ServiceEntry shop/b spec.hosts[0]"];
    let of_ops = ["conflicting-host ServiceEntry ops/b spec.hosts[0]"];
    let https = PORT.replace("80, name: http, protocol: HTTP", "443, name: tls, protocol: TLS");
    check_both(PORT, "shop", PORT, &[]);
    check_both(PORT, "shop", &https, &[]);
    check_both(PORT, "shop", &PORT.replace("STATIC", "DNS"), &of_shop);
    check_both(PORT, "shop", &PORT.replace("http,", "web,"), &of_shop);
    check_both(PORT, "shop", &PORT.replace("http, protocol: HTTP", "web, protocol: UDP"), &[]);
    check_both(PORT, "shop", &format!("{PORT}, location: MESH_INTERNAL"), &of_shop);
    check_both(PORT, "shop", &format!("{PORT}, addresses: [10.0.0.1]"), &of_shop);
    check_both(&format!("{PORT}, addresses: [10.0.0.1]"), "shop", PORT, &[]);
    // They share endpoints, but not ports.
    let everyone = ", exportTo: ['*']";
    check_both(PORT, "shop", &format!("{PORT}{everyone}"), &[]);
    check_both(PORT, "shop", &format!("{https}{everyone}"), &of_shop);
    // Each comes first in its own namespace, and one in others.
    check_both(PORT, "ops", PORT, &of_ops);
    check_both(PORT, "ops", &format!("{PORT}, exportTo: [.]"), &[]);
    check_both(
        &format!("{PORT}, exportTo: [.]"),
        "ops",
        PORT,
        &[
            // Of clients in `shop` the one of `ops` is seen as well.
            of_ops[0],
        ],
    );
    check_both(&format!("{PORT}, exportTo: [.]"), "ops", &format!("{PORT}, exportTo: [., web]"), &[]);
}

#[test]
fn services_of_kubernetes_come_first() {
    let entry = |namespace: &str, export_to: &str, expected: &[&str]| {
        let spec = format!("hosts: [web.shop.svc.cluster.local], {PORT}, exportTo: [{export_to}]");
        check(&[object("ServiceEntry", "a", namespace, &spec)], expected);
    };
    entry("shop", ".", &["conflicting-host ServiceEntry shop/a spec.hosts[0]"]);
    entry("shop", "'*'", &["conflicting-host ServiceEntry shop/a spec.hosts[0]"]);
    entry("ops", "'*'", &["conflicting-host ServiceEntry ops/a spec.hosts[0]"]);
    entry("ops", ".", &[]);
}
