use super::*;

#[test]
fn tables_are_replaced_in_one_input() {
    let rule = |table, chain, first, matches: &[Match], action| Rule {
        table,
        chain,
        family: None,
        first,
        matches: matches.to_vec(),
        action,
    };
    let rules = [
        rule(Table::Nat, Chain::Output, false, &[], Action::Jump(Chain::Outbound)),
        rule(Table::Raw, Chain::Output, false, &[Match::Udp, Match::ToPort(53)], Action::Zone(2)),
    ];
    let expected = "\
add table inet istio-proxy-mangle
delete table inet istio-proxy-mangle
add table inet istio-proxy-nat
delete table inet istio-proxy-nat
add table inet istio-proxy-raw
delete table inet istio-proxy-raw
table inet istio-proxy-nat {
\tchain output {
\t\ttype nat hook output priority -100; policy accept;
\t\tcounter jump istio-output
\t}
\tchain istio-output {
\t}
}
table inet istio-proxy-raw {
\tchain output {
\t\ttype filter hook output priority -300; policy accept;
\t\tudp dport 53 counter ct zone set 2
\t}
}
";
    assert_eq!(replacement(&rules), expected);
}

#[test]
fn only_empty_tables_of_iptables_are_deleted() {
    let check = |chain: &str, expected: Option<&str>| {
        let listing =
            format!("# Warning: managed\ntable ip nat {{\n\tchain PREROUTING {{\n{chain}\t}}\n}}\n");
        assert_eq!(deletion("ip", "nat", &listing).as_deref(), expected, "{chain}");
    };
    let hook = "\t\ttype nat hook prerouting priority dstnat; policy accept;\n";
    check(hook, Some("delete chain ip nat PREROUTING\ndelete table ip nat\n"));
    check(&hook.replace("accept", "drop"), None);
    check(&format!("{hook}\t\tcounter packets 0 bytes 0 accept\n"), None);
    // A chain of somebody's own.
    check("", None);
}
