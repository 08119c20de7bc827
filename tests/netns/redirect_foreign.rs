//! Somebody else's rules in chains that are called as ours are.

use crate::redirect::{assert_same, everything, namespace, redirect, run, run_with, snapshot};

/// Chains of somebody else: one called as ours, one called nearly so.
const FOREIGN: &str = "\
*nat
:ISTIO_OUTPUT - [0:0]
:ISTIO_THEIRS - [0:0]
-A OUTPUT -p udp -m udp --dport 9 -j ISTIO_OUTPUT
-A OUTPUT -p udp -m udp --dport 8 -j ISTIO_THEIRS
-A ISTIO_OUTPUT -p udp -m udp --dport 9 -j ACCEPT
COMMIT
";

const ADVICE: &str = "take these chains away with all that is in them: `weft redirect remove --force`";

#[test]
fn a_chain_that_is_only_called_as_ours_stays() {
    const TEST: &str = "netns::redirect_foreign::a_chain_that_is_only_called_as_ours_stays";
    for (kind, family) in [("nft", "iptables"), ("legacy", "iptables"), ("legacy", "ip6tables")] {
        let Some(namespace) = namespace(TEST) else { return };
        namespace.run(|| async move {
            let tool = format!("{family}-{kind}");
            assert!(run_with(&format!("{tool}-restore"), &["--noflush"], FOREIGN).status.success());
            let before = snapshot();
            let rules = "(`-A OUTPUT -p udp -m udp --dport 9 -j ISTIO_OUTPUT` in table nat and 1 more)";
            let back_end = format!("--force-iptables-binary={kind}");
            let other_place = "--native-nftables";
            for arguments in [
                &["remove"][..],
                &["apply", "--cleanup-only"],
                &["apply", "--dual-stack", &back_end],
                &["apply", "--dual-stack", &back_end, "--reconcile"],
                &["apply", "--dual-stack", &back_end, "--force-apply"],
                &["apply", other_place, "--reconcile"],
            ] {
                let (status, said) = redirect(arguments);
                assert_eq!(status, 1, "{tool} {arguments:?}: {said}");
                assert!(said.contains(&tool) && said.contains(rules), "{tool} {arguments:?}: {said}");
                assert!(said.contains(ADVICE), "{tool} {arguments:?}: {said}");
                assert_same(&snapshot(), &before, &format!("{tool} {arguments:?}"));
            }
            let (status, said) = redirect(&["remove", "--force"]);
            assert_eq!((status, said), (0, format!("{tool}: 2 rules removed\n")));
            let left = snapshot();
            assert!(!left.contains("ISTIO_OUTPUT"), "{left}");
            assert!(left.contains("-A OUTPUT -p udp -m udp --dport 8 -j ISTIO_THEIRS"), "{left}");
        });
    }
}

/// One rule of somebody else's among ours keeps all of them, in the other family too.
#[test]
fn a_rule_among_ours_is_not_taken_away_unasked() {
    const TEST: &str = "netns::redirect_foreign::a_rule_among_ours_is_not_taken_away_unasked";
    for kind in ["nft", "legacy"] {
        let Some(namespace) = namespace(TEST) else { return };
        namespace.run(|| async move {
            let back_end = format!("--force-iptables-binary={kind}");
            // Tables of the old iptables stay once they are there.
            assert_eq!(redirect(&everything("apply", &back_end, "TPROXY")).0, 0);
            assert_eq!(redirect(&everything("remove", &back_end, "TPROXY")).0, 0);
            let before = snapshot();
            assert_eq!(redirect(&everything("apply", &back_end, "TPROXY")).0, 0);
            let added = ["-t", "nat", "-I", "ISTIO_OUTPUT", "1", "-p", "udp", "--dport", "9", "-j", "ACCEPT"];
            assert!(run(&format!("ip6tables-{kind}"), &added).status.success());
            let applied = snapshot();
            let (status, said) = redirect(&everything("remove", &back_end, "TPROXY"));
            assert_eq!(status, 1, "{said}");
            assert!(said.contains("`-A ISTIO_OUTPUT -p udp -m udp --dport 9 -j ACCEPT`"), "{said}");
            assert!(said.contains(ADVICE), "{said}");
            assert_same(&snapshot(), &applied, "refused");
            let (status, said) =
                redirect(&[&everything("remove", &back_end, "TPROXY")[..], &["--force"]].concat());
            assert_eq!(status, 0, "{said}");
            assert_same(&snapshot(), &before, "forced");
        });
    }
}
