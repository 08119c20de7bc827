//! What a file may cost.

use super::*;

#[test]
fn limits_hold() {
    let limits = Limits {
        file_bytes_max: 4000,
        file_documents_max: 3,
        document_bytes_max: 2000,
        document_nodes_max: 100,
        document_depth_max: 8,
        alias_nodes_max: 20,
        document_problems_max: 2,
        file_problems_max: 100,
        ..Limits::DEFAULT
    };
    let check = |text: &str, expected: &str| {
        let read = read_file(&Arc::from("f.yaml"), text, &limits);
        let mut findings = read.objects.iter().flat_map(|object| &object.findings).chain(&read.findings);
        let found =
            findings.any(|finding| finding.code == "limit-exceeded" && finding.what.contains(expected));
        assert!(found, "{expected}: {read:?}");
    };
    check(&"# x\n".repeat(2000), "file_bytes_max");
    check(&format!("{SERVICE}---\n").repeat(5), "file_documents_max");
    check(&format!("a: {}", "x".repeat(3000)), "document_bytes_max");
    check(&format!("a: [{}]", "1, ".repeat(200)), "document_nodes_max");
    check(&format!("a: {}{}", "[".repeat(20), "]".repeat(20)), "document_depth_max");
    check("a: &a [1, 2, 3, 4, 5]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n", "alias_nodes_max");
    let list = format!(
        "kind: List\napiVersion: v1\nitems: [{}]",
        "{apiVersion: v1, kind: Node, metadata: {name: a}}, ".repeat(5)
    );
    check(&list, "file_documents_max");
    let many = format!("{ROUTE}spec: {{a: 1, b: 2, c: 3, d: 4}}\n");
    let read = read_file(&Arc::from("f"), &many, &limits);
    let told: Vec<_> = read.objects[0].findings.iter().map(|finding| finding.what.as_str()).collect();
    let more =
        "; and 2 more of this object, which are not told: past the limit document_problems_max, which is 2";
    assert_eq!(told, ["there is no field `a` here", &format!("there is no field `b` here{more}")]);
    // A List does not tell which of its items those are in that are not told: none of them is believed.
    let twice = "{apiVersion: v1, kind: Node, metadata: {name: a, name: b}}, ".repeat(3);
    let list = format!("kind: List\napiVersion: v1\nitems: [{twice}]");
    let read = read_file(&Arc::from("f"), &list, &limits);
    assert!(read.objects.is_empty() && read.unidentified == 1, "{read:?}");
    assert!(read.findings[0].what.contains("and 2 more"), "{read:?}");
}

/// The stack bears what `document_depth_max` may be set to, also where nobody reads it but to drop it.
#[test]
fn the_deepest_document_that_may_be_allowed_is_read() {
    let mut process = crate::limits::Limits::DEFAULT;
    assert!(process.set("document_depth_max", 257).is_err());
    process.set("document_depth_max", 256).unwrap();
    let deep = |depth: usize| format!("{ROUTE}spec: {}{}\n", "[".repeat(depth), "]".repeat(depth));
    let code = |depth: usize| {
        let read = read_file(&Arc::from("f.yaml"), &deep(depth), &Limits::of(&process));
        read.objects[0].findings.iter().map(|finding| finding.code).collect::<Vec<_>>()
    };
    assert_eq!(code(255), ["wrong-type"]);
    assert_eq!(code(256), ["limit-exceeded"]);
    let maps = format!("{ROUTE}spec: {}1{}\n", "{a: ".repeat(255), "}".repeat(255));
    let read = read_file(&Arc::from("f.yaml"), &maps, &Limits::of(&process));
    assert_eq!(read.objects[0].findings[0].code, "unknown-field");
}

/// Whatever is written shortly and takes much: items of lists, items inside items, entries of maps, text, and objects that
/// say next to nothing.
#[test]
fn what_an_object_may_take_of_memory_is_bounded() {
    const ROOM: usize = 100_000;
    let check = |text: String, limit: &str, refused: &[usize]| {
        let (object, total) = if limit.contains("total") { (usize::MAX, ROOM) } else { (ROOM, usize::MAX) };
        let limits = Limits { object_bytes_max: object, objects_bytes_total_max: total, ..Limits::DEFAULT };
        let read = read_file(&Arc::from("f.yaml"), &text, &limits);
        let is_refused = |number: &usize| {
            let object = &read.objects[*number];
            let told =
                object.findings.iter().any(|it| it.code == "limit-exceeded" && it.what.contains(limit));
            assert_eq!(told, object.value.is_none(), "{limit}: {object:?}");
            told
        };
        let found: Vec<_> = (0..read.objects.len()).filter(is_refused).collect();
        assert_eq!(found, refused, "{limit}: {text:.200}");
        assert!(read.objects.iter().all(|object| object.bytes <= ROOM), "{limit}");
    };
    let one = "object_bytes_max, which is 100000";
    let all = "objects_bytes_total_max, which is 100000";
    check(format!("{ROUTE}spec: {{http: [{}]}}\n", "{},".repeat(1000)), one, &[0]);
    check(format!("{ROUTE}spec: {{http: [{}]}}\n", "{},".repeat(10)), one, &[]);
    check(format!("{ROUTE}spec: {{http: [{{match: [{}]}}]}}\n", "{},".repeat(1000)), one, &[0]);
    check(format!("{ROUTE}spec: {{hosts: [{}]}}\n", "a,".repeat(5000)), one, &[0]);
    check(format!("{ROUTE}spec: {{hosts: [{}]}}\n", "a".repeat(100_000)), one, &[0]);
    let labels: String = (0..5000).map(|number| format!("l{number}: a, ")).collect();
    check(format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a, labels: {{{labels}}}}}\n"), one, &[0]);
    let small = |number| format!("---\napiVersion: v1\nkind: Node\nmetadata: {{name: n{number}}}\n");
    let many: String = (0..100).map(small).collect();
    check(many.clone(), one, &[]);
    let read =
        read_file(&Arc::from("f"), &many, &Limits { objects_bytes_total_max: ROOM, ..Limits::DEFAULT });
    let first = read.objects.iter().position(|object| object.value.is_none()).unwrap();
    check(many, all, &(first..100).collect::<Vec<_>>());
}

#[test]
fn a_file_that_is_wrong_throughout_is_not_told_throughout() {
    let limits = Limits { file_problems_max: 3, ..Limits::DEFAULT };
    let told = |text: &str| {
        let read = read_file(&Arc::from("f.yaml"), text, &limits);
        let of_objects: Vec<_> = read.objects.iter().map(|object| object.findings.len()).collect();
        let lines: Vec<_> = read
            .findings
            .iter()
            .map(|finding| (finding.place.as_ref().unwrap().line, finding.what.clone()))
            .collect();
        (of_objects, lines, read.unidentified)
    };
    let bad = format!("---\n{ROUTE}spec: {{a: 1, b: 2}}\n");
    assert_eq!(told(&bad.repeat(4)), (vec![2, 1, 1, 1], Vec::new(), 0));
    let (of_objects, lines, unidentified) = told(&"---\na: b\n".repeat(6));
    assert_eq!((of_objects.len(), lines.len(), unidentified), (0, 4, 6));
    assert_eq!(lines[3], (8, "3 more documents do not tell which object they are".to_owned()));
}

/// The classic: each level repeats the one before it nine times.
#[test]
fn a_billion_laughs_cost_little() {
    let mut text = "a0: &a0 [x]\n".to_owned();
    for level in 1..30 {
        let alias = format!("*a{}, ", level - 1).repeat(9);
        text.push_str(&format!("a{level}: &a{level} [{alias}]\n"));
    }
    let read = read(&text);
    assert_eq!(read.findings.len(), 1, "{:?}", read.findings);
    assert_eq!(read.findings[0].code, "limit-exceeded");
}
