//! When names are asked for, and what stays.

use super::*;
use crate::time;

const RATE: Duration = Duration::from_secs(60);

fn key(host: &str) -> Key {
    Key { host: host.into(), family: DnsFamily::V4Only }
}

fn wanted(hosts: &[&str]) -> BTreeMap<Key, Wanted> {
    let clusters = vec!["c".into()];
    let wanted = Wanted { clusters, uses: 1, refresh_rate: RATE, respect_ttl: true, origin: None };
    hosts.iter().map(|host| (key(host), wanted.clone())).collect()
}

fn names() -> Names {
    names_with(1_000)
}

fn names_with(addresses_max: usize) -> Names {
    Names::new(Bounds {
        shortest: Duration::from_secs(1),
        longest: Duration::from_secs(3_600),
        addresses_max,
    })
}

fn addresses(told: &[&str], ttl: Option<u64>) -> Answer {
    let addresses = told.iter().map(|address| address.parse().expect("an address"));
    Answer::Addresses(addresses.collect(), ttl.map(Duration::from_secs))
}

#[test]
fn a_name_is_asked_for_again_when_its_time_is_over() {
    let begin = time::now();
    let check = |answer: Answer, random: u64, expected: Duration| {
        let mut names = names();
        names.want(wanted(&["a"]), begin);
        assert_eq!(names.due(begin, 10).len(), 1);
        assert_eq!((names.due(begin, 10).len(), names.next()), (0, None), "it is being asked for");
        names.answered(&key("a"), answer.clone(), begin, random);
        assert_eq!(names.next(), Some(begin + expected), "{answer:?}");
        assert!(names.due(begin + expected - Duration::from_micros(1), 10).is_empty());
        assert_eq!(names.due(begin + expected, 10).len(), 1);
    };
    let seconds = Duration::from_secs;
    check(addresses(&["1.2.3.4"], Some(30)), 0, seconds(30));
    check(addresses(&["1.2.3.4"], Some(30)), 99_999, Duration::from_micros(30_099_999));
    check(addresses(&["1.2.3.4"], Some(30)), 100_000, seconds(30));
    // No time to live, or one of nothing, leaves it to the refresh rate.
    check(addresses(&["1.2.3.4"], None), 0, RATE);
    check(addresses(&["1.2.3.4"], Some(0)), 0, RATE);
    check(addresses(&["1.2.3.4"], Some(86_400)), 0, seconds(3_600));
    check(Answer::None("no"), 0, RATE);
    check(Answer::Failed("no".to_owned()), 0, seconds(1));
}

#[test]
fn a_name_that_fails_is_asked_for_less_and_less() {
    let (mut names, mut now) = (names(), time::now());
    names.want(wanted(&["a"]), now);
    for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(names.due(now, 1).len(), 1);
        names.answered(&key("a"), Answer::Failed("no".to_owned()), now, 0);
        let next = names.next().expect("it is asked for again");
        assert_eq!(next - now, Duration::from_secs(expected));
        now = next;
    }
    names.due(now, 1);
    names.answered(&key("a"), addresses(&["1.2.3.4"], Some(5)), now, 0);
    names.due(now + Duration::from_secs(5), 1);
    names.answered(&key("a"), Answer::Failed("no".to_owned()), now, 0);
    assert_eq!(names.next(), Some(now + Duration::from_secs(1)), "a good answer makes up for all failures");
}

#[test]
fn what_was_told_last_stays_until_something_else_is_told() {
    let (mut names, now) = (names(), time::now());
    names.want(wanted(&["a"]), now);
    let mut check = |answer: Answer, changes: bool, expected: &[&str], trouble: Option<(&str, bool)>| {
        assert_eq!(names.answered(&key("a"), answer.clone(), now, 0), changes, "{answer:?}");
        let told: Vec<String> = names.addresses(&key("a")).iter().map(ToString::to_string).collect();
        assert_eq!(told, expected, "{answer:?}");
        let troubles: Vec<_> = names.troubles().map(|(_, _, why, has_earlier)| (why, has_earlier)).collect();
        assert_eq!(troubles.first().copied(), trouble, "{answer:?}");
    };
    let failed = || Answer::Failed("timed out".to_owned());
    check(failed(), true, &[], Some(("timed out", false)));
    check(failed(), false, &[], Some(("timed out", false)));
    check(addresses(&["1.2.3.4", "1.2.3.5"], None), true, &["1.2.3.4", "1.2.3.5"], None);
    check(addresses(&["1.2.3.4", "1.2.3.5"], Some(9)), false, &["1.2.3.4", "1.2.3.5"], None);
    check(failed(), true, &["1.2.3.4", "1.2.3.5"], Some(("timed out", true)));
    check(addresses(&["1.2.3.5", "1.2.3.4"], None), true, &["1.2.3.5", "1.2.3.4"], None);
    check(Answer::None("no such name"), true, &[], Some(("no such name", false)));
}

#[test]
fn only_what_is_wanted_is_asked_for_and_kept() {
    let (mut names, now) = (names(), time::now());
    names.want(wanted(&["a", "b", "c"]), now);
    assert_eq!(names.due(now, 2).len(), 2);
    assert_eq!(names.due(now, 2).len(), 1);
    names.answered(&key("a"), addresses(&["1.2.3.4"], None), now, 0);
    assert_eq!(names.unanswered(), 2);
    names.want(wanted(&["a"]), now);
    assert_eq!((names.unanswered(), names.addresses(&key("a")).len()), (0, 1), "what is known stays");
    assert!(!names.answered(&key("b"), addresses(&["1.2.3.4"], None), now, 0));
    assert!(names.addresses(&key("b")).is_empty());
}

/// Whoever is asked first: those with few addresses have them all, and the others the same number, which stay.
#[test]
fn names_with_many_addresses_leave_room_for_others() {
    let now = time::now();
    let many = |from: u8| {
        let told = (0..9).map(|number| IpAddr::from([10, 0, 0, from + number]));
        Answer::Addresses(told.collect(), None)
    };
    let kept = |names: &Names| ["a", "b", "c"].map(|host| names.addresses(&key(host)).len());
    let cut = |names: &Names| names.cut().map(|(key, _)| key.host.to_string()).collect::<Vec<_>>();
    let answers = [("a", many(1)), ("b", many(1)), ("c", addresses(&["1.2.3.4", "1.2.3.5"], None))];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut names = names_with(11);
        names.want(wanted(&["a", "b", "c"]), now);
        for (host, answer) in order.map(|at| answers[at].clone()) {
            assert!(names.answered(&key(host), answer, now, 0));
        }
        // Some that were cut by those before may have more when they are asked for again.
        names.answered(&key("a"), many(1), now, 0);
        names.answered(&key("b"), many(1), now, 0);
        assert_eq!((kept(&names), cut(&names)), ([4, 4, 2], vec!["a".to_owned(), "b".to_owned()]));
        let had = names.addresses(&key("a")).to_vec();
        assert!(!names.answered(&key("a"), many(1), now, 0), "it is no change");
        names.answered(&key("a"), many(3), now, 0);
        let stayed = names.addresses(&key("a")).iter().filter(|address| had.contains(address)).count();
        assert_eq!((stayed, kept(&names)), (2, [4, 4, 2]), "two are told no more");

        // What is used more often takes more room, and each has one, whatever is used how often.
        let mut often = wanted(&["a", "b", "c"]);
        for uses in [2, 100] {
            often.values_mut().for_each(|wanted| wanted.uses = uses);
            names.want(often.clone(), now);
            assert_eq!(kept(&names), [1, 1, 1]);
        }
        names.want(wanted(&["a"]), now);
        assert!(names.answered(&key("a"), many(1), now, 0), "there is room again");
        assert_eq!((names.addresses(&key("a")).len(), cut(&names)), (9, Vec::new()));
    }
}

/// Of a name of which one address is wanted it is the first, and others are asked for when they are wanted.
#[test]
fn the_first_address_takes_no_room() {
    let (mut names, now) = (names_with(1), time::now());
    let mut first = wanted(&["a"]);
    first.values_mut().for_each(|wanted| wanted.uses = 0);
    names.want(first, now);
    names.due(now, 1);
    names.answered(&key("a"), addresses(&["1.2.3.4", "1.2.3.5"], None), now, 0);
    names.answered(&key("a"), addresses(&["1.2.3.5", "1.2.3.4"], None), now, 0);
    assert_eq!((names.addresses(&key("a")), names.cut().count()), (&[IpAddr::from([1, 2, 3, 5])][..], 0));
    assert!(names.due(now, 1).is_empty());
    names.want(wanted(&["a"]), now);
    assert_eq!(names.due(now, 1).len(), 1);
}
