//! Rules that are there already, by nft, which tells rules in other words than it is told them.

use crate::redirect::{MODES, UNPROVED, assert_same, everything, namespace, redirect, run, snapshot};

#[test]
fn what_is_there_and_differs_is_refused_or_replaced() {
    const TEST: &str = "netns::redirect_nft::what_is_there_and_differs_is_refused_or_replaced";
    for mode in MODES {
        let Some(namespace) = namespace(TEST) else { return };
        namespace.run(|| async move {
            let everything = everything("apply", "--native-nftables", mode);
            let other = ["apply", "--native-nftables", "-b", "80"];
            let in_force = (0, "the rules are in force already\n".to_owned());
            assert_eq!(redirect(&everything).0, 0);
            let applied = snapshot();
            assert_eq!(redirect(&everything), in_force);
            let (status, said) = redirect(&other);
            assert_eq!(status, 1, "{said}");
            assert!(said.contains("table inet istio-proxy-") && said.contains("--reconcile"), "{said}");
            assert_same(&snapshot(), &applied, "refused");
            assert_eq!(redirect(&[&other[..], &["--reconcile"]].concat()).0, 0);
            assert_eq!(redirect(&other), in_force);
            // Rules that are missing, and one that is too many, are noticed.
            let replaced = snapshot();
            for change in [
                "flush chain inet istio-proxy-nat istio-inbound",
                "add rule inet istio-proxy-nat istio-inbound accept",
            ] {
                let words: Vec<&str> = change.split(' ').collect();
                assert!(run("nft", &words).status.success(), "{change}");
                let (status, said) = redirect(&other);
                assert_eq!(status, 1, "{change}: {said}");
                assert_eq!(redirect(&[&other[..], &["--reconcile"]].concat()).0, 0);
                assert_same(&snapshot(), &replaced, change);
            }
        });
    }
}

/// Tables of nftables are of both families; without dual stack the proxy listens for one.
#[test]
fn a_family_that_the_rules_refuse_is_told_and_not_proved() {
    let test = "netns::redirect_nft::a_family_that_the_rules_refuse_is_told_and_not_proved";
    let Some(namespace) = namespace(test) else { return };
    namespace.run(|| async move {
        for (back_end, dual_stack, tells) in [
            ("--native-nftables", "--dual-stack=false", true),
            ("--native-nftables", "--dual-stack", false),
            ("--force-iptables-binary=nft", "--dual-stack=false", false),
        ] {
            let check = |more: &[&str], expected: i32| {
                let (status, said) = redirect(&[more, &[back_end, dual_stack]].concat());
                assert_eq!(status, expected, "{more:?} {back_end} {dual_stack}: {said}");
                assert_eq!(
                    said.matches("IPv6: connections that the rules catch are refused").count(),
                    usize::from(tells),
                    "{said}"
                );
                assert!(more[0] == "apply" || said.contains("IPv4: a connection to 127.0.0.6"), "{said}");
            };
            check(&["apply"], 0);
            check(&["verify"], if tells { UNPROVED } else { 0 });
            // A pod starts so as it does with Istio.
            check(&["apply", "--run-validation"], 0);
            check(&["apply", "--run-validation", "--skip-rule-apply"], 0);
            assert_eq!(redirect(&["remove", back_end, dual_stack]).0, 0);
        }
    });
}
