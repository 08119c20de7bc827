//! What would end `weft redirect` in the middle of its work: all is done then, or nothing.

use crate::redirect::{
    BACK_ENDS, assert_same, bare_namespace, everything, namespace, programs_with, redirect, redirect_with,
    snapshot,
};

/// A signal that comes while one step is taken, whichever it is: the step is ended, and all are taken back.
#[test]
fn a_signal_takes_back_what_was_done() {
    const TEST: &str = "netns::redirect_ends::a_signal_takes_back_what_was_done";
    let cases = [
        (BACK_ENDS[0], "iptables-nft-restore", "*", "TERM"),
        (BACK_ENDS[1], "iptables-legacy-restore", "*", "INT"),
        (BACK_ENDS[1], "ip6tables-legacy-restore", "*", "HUP"),
        (BACK_ENDS[0], "ip", "*'rule add'*", "TERM"),
        (BACK_ENDS[2], "nft", "'-f -'", "QUIT"),
        // The last step of all.
        (BACK_ENDS[2], "ip", "'-6 route add'*", "TERM"),
    ];
    for (back_end, program, pattern, signal) in cases {
        let Some(namespace) = namespace(TEST) else { return };
        namespace.run(|| async move {
            // Tables of the old iptables stay once they are there.
            assert_eq!(redirect(&everything("apply", BACK_ENDS[1], "TPROXY")).0, 0);
            assert_eq!(redirect(&everything("remove", BACK_ENDS[1], "TPROXY")).0, 0);
            let before = snapshot();
            let (_directory, path) = programs_with(program, pattern, &format!("kill -{signal} $PPID"));
            let (status, said) = redirect_with(Some(&path), &everything("apply", back_end, "TPROXY"));
            assert_eq!(status, 1, "{program} {pattern}: {said}");
            let expected =
                format!("SIG{signal} came before all was done; what had been changed before is as it was");
            assert!(said.contains(&expected), "{program} {pattern}: {said}");
            assert_same(&snapshot(), &before, &format!("{back_end}, {signal} during {program} {pattern}"));
            assert_eq!(redirect(&everything("apply", back_end, "TPROXY")).0, 0, "the lock is free");
        });
    }
}

/// Whoever stops a removal finds nothing half removed.
#[test]
fn a_removal_that_has_begun_is_ended() {
    const TEST: &str = "netns::redirect_ends::a_removal_that_has_begun_is_ended";
    let Some(namespace) = namespace(TEST) else { return };
    namespace.run(|| async move {
        let before = snapshot();
        assert_eq!(redirect(&everything("apply", BACK_ENDS[0], "TPROXY")).0, 0);
        let (_directory, path) = programs_with("iptables-nft-restore", "*", "kill -TERM $PPID");
        redirect_with(Some(&path), &everything("remove", BACK_ENDS[0], "TPROXY"));
        assert_same(&snapshot(), &before, "removed");
    });
}

/// Not an argument that is wrong, but nothing can be done here, or not as it was said.
#[test]
fn what_the_machine_lacks_is_told() {
    const TEST: &str = "netns::redirect_ends::what_the_machine_lacks_is_told";
    let Some(bare) = bare_namespace(TEST) else { return };
    bare.run(|| async move {
        let (status, said) = redirect(&["apply"]);
        assert!(status == 1 && said.contains("no interface has an address but loopback"), "{status} {said}");
    });
    let Some(namespace) = namespace(TEST) else { return };
    namespace.run(|| async move {
        for back_end in BACK_ENDS {
            let (status, said) = redirect(&["apply", back_end, "-u", "nobody-here"]);
            let expected = "-u: there is no user `nobody-here` on this machine; write its number (";
            assert!(status == 1 && said.contains(expected), "{back_end}: {status} {said}");
        }
    });
}
