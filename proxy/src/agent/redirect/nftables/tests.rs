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
fn only_what_is_empty_is_deleted() {
    let check = |chains: &str, expected: Option<&str>| {
        let listing = format!("# Warning: managed\ntable ip nat {{\n{chains}}}\n");
        assert_eq!(
            deletion("ip", "nat", &listing, &["PREROUTING", "OUTPUT"]).as_deref(),
            expected,
            "{chains}"
        );
    };
    let prerouting =
        "\tchain PREROUTING {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n\t}\n";
    let output = "\tchain OUTPUT {\n\t\ttype nat hook output priority -100; policy accept;\n\t}\n";
    let rule = "policy accept;\n\t\tcounter packets 0 bytes 0 accept\n";
    let input = output.replace("OUTPUT", "INPUT").replace("output", "input");
    let gone = "delete chain ip nat PREROUTING\n";
    check(prerouting, Some(&format!("{gone}delete table ip nat\n")));
    check(
        &format!("{prerouting}{output}"),
        Some(&format!("{gone}delete chain ip nat OUTPUT\ndelete table ip nat\n")),
    );
    check("", Some("delete table ip nat\n"));
    check(&prerouting.replace("accept", "drop"), None);
    check(&prerouting.replace("policy accept;\n", rule), None);
    // What is somebody's stays, and so does the table then.
    check(&format!("\tchain THEIRS {{\n\t}}\n{prerouting}"), Some(gone));
    check(&format!("{prerouting}{input}"), Some(gone));
    check(
        &format!("{}{output}", prerouting.replace("policy accept;\n", rule)),
        Some("delete chain ip nat OUTPUT\n"),
    );
    check(&format!("\tset theirs {{\n\t\ttype inet_service\n\t}}\n{prerouting}"), Some(gone));
}
