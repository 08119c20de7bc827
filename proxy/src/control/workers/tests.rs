//! Who decides how many workers there are.

use super::*;

fn asked(workers: u32) -> Concurrency {
    Concurrency { workers, asked_by: "somebody".to_owned() }
}

#[test]
fn who_decides() {
    let cpu = |cores, quota, limit_told, request_told| Cpu { cores, quota, limit_told, request_told };
    let check = |told, concurrency: Option<u32>, cpu: Cpu, workers, by: &str| {
        let found = decide(told, concurrency.map(asked).as_ref(), &cpu);
        assert_eq!(found.workers, workers, "{told} {concurrency:?} {cpu:?}");
        assert!(found.decided_by.starts_with(by), "{}: {told} {concurrency:?} {cpu:?}", found.decided_by);
    };
    use Quota::{Limited, Unknown, Unlimited};
    let all = cpu(16, Limited(5000), Some(4000), Some(3000));
    check(7, Some(6), all.clone(), 7, "--workers");
    check(0, Some(6), all.clone(), 6, "somebody");
    check(0, Some(0), all.clone(), 16, "somebody: 0, one per core");
    check(0, None, all, 4, "CPU limit in ISTIO_CPU_LIMIT");
    check(0, None, cpu(16, Limited(5000), None, Some(3000)), 5, "CPU limit of the cgroup");
    check(0, None, cpu(16, Unlimited, None, Some(3000)), 3, "CPU request in WEFT_CPU_REQUEST");
    check(0, None, cpu(16, Unknown, None, None), 2, "default");
    check(0, None, cpu(1, Unlimited, None, None), 1, "default");
    // Parts of a core count as one.
    check(0, None, cpu(16, Unknown, Some(1), None), 1, "CPU limit in");
    check(0, None, cpu(16, Limited(2001), None, None), 3, "CPU limit of");
    check(0, None, cpu(16, Unknown, None, Some(100)), 1, "CPU request");
    // What the downward API gives without a limit.
    check(0, None, cpu(16, Unlimited, Some(16_000), Some(100)), 1, "CPU request");
    check(0, None, cpu(16, Unlimited, Some(16_000), None), 16, "CPU limit in");
    check(0, None, cpu(16, Unknown, Some(16_000), Some(100)), 16, "CPU limit in");
    check(0, None, cpu(16, Unlimited, Some(3_000), Some(100)), 3, "CPU limit in");
    // Bounds.
    check(5000, None, Cpu::default(), WORKERS_MAX, "--workers");
    check(0, Some(u32::MAX), Cpu::default(), WORKERS_MAX, "somebody");
    check(0, None, cpu(0, Unknown, None, None), 1, "default");
    check(0, None, cpu(1, Limited(u64::MAX), None, None), WORKERS_MAX, "CPU limit of");
}

#[test]
fn amounts_of_cpu() {
    let check = |text: &str, expected| assert_eq!(amount(text), expected, "{text}");
    check("2", Some(2000));
    check("500m", Some(500));
    check("1.5", Some(1500));
    check("0.1", Some(100));
    check("0.0001", Some(1));
    check("0", Some(0));
    for bad in ["", "m", "two", "-1", "1.x", "1.-5", "1k", "99999999999999999999", "18446744073709551615"] {
        check(bad, None);
    }
}

#[test]
fn variables_are_read() {
    let read = |limit: &str, request: &str| {
        let (limit, request) = (limit.to_owned(), request.to_owned());
        Cpu::read(move |name| match name {
            CPU_LIMIT_VARIABLE => Some(limit.clone()),
            CPU_REQUEST_VARIABLE => Some(request.clone()),
            _ => None,
        })
    };
    let cpu = read("2", "100m").unwrap();
    assert_eq!((cpu.limit_told, cpu.request_told), (Some(2000), Some(100)));
    assert!(cpu.cores >= 1);
    let nothing = read("", "0").unwrap();
    assert_eq!((nothing.limit_told, nothing.request_told), (None, None));
    let wrong = read("many", "").unwrap_err();
    assert_eq!(wrong, "ISTIO_CPU_LIMIT: `many` is not an amount of CPU; write it like 2 or 500m");
}

#[test]
fn lists_of_cores() {
    for (list, expected) in
        [("0", Some(1)), ("0-3", Some(4)), ("0-1,4,6-7", Some(5)), ("", None), ("3-0", None), ("x", None)]
    {
        assert_eq!(listed(list), expected, "{list}");
    }
}

#[test]
fn what_the_kernel_enforces() {
    let check = |files: &[(&str, &str)], own: &str, expected| {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = root.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        assert_eq!(quota(root.path(), own), expected, "{files:?} {own}");
    };
    let own = "0::/\n";
    check(&[], own, Quota::Unknown);
    check(&[("cpu.max", "max 100000\n")], own, Quota::Unlimited);
    check(&[("cpu.max", "150000 100000\n")], own, Quota::Limited(1500));
    check(&[("cpu.max", "1 3\n")], own, Quota::Limited(334));
    for broken in ["", "x 1", "1", "1 0", "99999999999999999999 1"] {
        check(&[("cpu.max", broken)], own, Quota::Unknown);
    }
    // A service of the machine's own, whose parents may be narrower.
    let nested = [("a/b/cpu.max", "400000 100000"), ("a/cpu.max", "200000 100000")];
    check(&nested, "1:name=systemd:/x\n0::/a/b\n", Quota::Limited(2000));
    check(&[("a/cpu.max", "max 100000")], "0::/a/b\n", Quota::Unlimited);
    // Paths that lead out of the tree, as of a process outside of its namespace, are not followed.
    check(&[("cpu.max", "100000 100000")], "0::/../../x\n", Quota::Limited(1000));
    let version_1 =
        |quota: &'static str| [("cpu/cpu.cfs_quota_us", quota), ("cpu/cpu.cfs_period_us", "100000\n")];
    check(&version_1("-1\n"), "4:cpu:/x\n", Quota::Unlimited);
    check(&version_1("250000\n"), "4:cpu:/x\n", Quota::Limited(2500));
}
