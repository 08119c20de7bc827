//! Files change under a running proxy, in every way that files change.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, what is not as expected ends the test")]

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use support::mesh::virtual_service;
use support::{Mesh, Request, TestProxy, eventually};

/// A rule that answers `body` by itself.
fn answers(host: &str, body: &str) -> String {
    virtual_service(host, &format!("  - directResponse: {{status: 200, body: {{string: \"{body}\"}}}}"))
}

/// A mesh with services of these names, on port 8000.
fn mesh(services: &[&str]) -> Mesh {
    services.iter().fold(Mesh::new(), |mesh, name| mesh.service(name, "http/8000"))
}

async fn start(mesh: Mesh) -> TestProxy {
    TestProxy::of(mesh).listen_outbound(8000).ready().await
}

/// What `host` answers now.
async fn asked(proxy: &TestProxy, host: &str) -> String {
    Request::get("/").host(host).send(proxy.listener(0)).await.text()
}

/// Waits until `host` answers `body`.
async fn becomes(proxy: &TestProxy, host: &str, body: &str) {
    eventually(&format!("{host} answers {body:?}"), || async {
        (asked(proxy, host).await == body).then_some(())
    })
    .await;
}

/// Waits until a proxy has acted on a change of another file; what is seen then was seen after the change before it.
async fn has_looked(proxy: &TestProxy, number: u32) {
    proxy.mesh.write("probe.yaml", &answers("probe", &number.to_string()));
    becomes(proxy, "probe", &number.to_string()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_renamed_over_another_and_one_rewritten_in_place() {
    let proxy = start(mesh(&["a"]).with("a.yaml", &answers("a", "one"))).await;
    assert_eq!(asked(&proxy, "a").await, "one");
    proxy.publish("a.yaml", &answers("a", "two")).await;
    assert_eq!(asked(&proxy, "a").await, "two");
    // The same length in the same moment: the file looks as it did but for what is in it.
    for body in ["3aa", "3bb", "3cc"] {
        fs::write(proxy.mesh.file("a.yaml"), answers("a", body)).unwrap();
    }
    becomes(&proxy, "a", "3cc").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_being_written_is_no_deletion() {
    let whole = |a: &str, b: &str| format!("{}---\n{}", answers("a", a), answers("b", b));
    let proxy = start(mesh(&["a", "b", "probe"]).with("ab.yaml", &whole("1", "1"))).await;
    let text = whole("2", "2");
    let (begin, rest) = text.split_at(answers("a", "2").len());
    let mut file = OpenOptions::new().write(true).truncate(true).open(proxy.mesh.file("ab.yaml")).unwrap();
    file.write_all(begin.as_bytes()).unwrap();
    for number in 1..=3 {
        has_looked(&proxy, number).await;
        assert_eq!(asked(&proxy, "b").await, "1");
    }
    file.write_all(rest.as_bytes()).unwrap();
    drop(file);
    becomes(&proxy, "b", "2").await;
    assert_eq!(asked(&proxy, "a").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_file_and_a_removed_one_are_believed_when_they_stay_so() {
    let proxy = start(
        mesh(&["a", "b", "probe"]).with("a.yaml", &answers("a", "1")).with("b.yaml", &answers("b", "1")),
    )
    .await;
    fs::write(proxy.mesh.file("a.yaml"), "").unwrap();
    fs::remove_file(proxy.mesh.file("b.yaml")).unwrap();
    has_looked(&proxy, 1).await;
    assert_eq!(asked(&proxy, "a").await, "1");
    assert_eq!(asked(&proxy, "b").await, "1");
    // Filled again, no answer was ever another than the old and the new one.
    fs::write(proxy.mesh.file("a.yaml"), answers("a", "2")).unwrap();
    becomes(&proxy, "a", "2").await;
    // The removed one stays away: the service is asked instead of the rule, and has no endpoint.
    becomes(&proxy, "b", "no healthy upstream").await;
    fs::write(proxy.mesh.file("a.yaml"), "").unwrap();
    becomes(&proxy, "a", "no healthy upstream").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_renamed_keeps_its_objects_without_a_word() {
    let proxy = start(mesh(&["a", "probe"]).with("m.yaml", &answers("a", "1"))).await;
    // To a name that comes after, and to one that comes before.
    for (number, from, to) in [(1, "m.yaml", "z.yaml"), (2, "z.yaml", "a.yaml")] {
        fs::rename(proxy.mesh.file(from), proxy.mesh.file(to)).unwrap();
        has_looked(&proxy, number).await;
        assert_eq!(asked(&proxy, "a").await, "1");
        let findings = proxy.page("/findings").await;
        assert!(!findings.contains("duplicate"), "{findings}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_map_swaps_all_its_files_as_one_generation() {
    let mesh = mesh(&["a", "b", "c"]);
    let version = |number: u32| {
        let directory = mesh.file(&format!("..version_{number}"));
        fs::create_dir(&directory).unwrap();
        for host in ["a", "b", "c"] {
            fs::write(directory.join(format!("{host}.yaml")), answers(host, &number.to_string())).unwrap();
        }
        // Kubelet's way: a new link beside the old one, renamed over it.
        symlink(format!("..version_{number}"), mesh.file("..data_tmp")).unwrap();
        fs::rename(mesh.file("..data_tmp"), mesh.file("..data")).unwrap();
    };
    version(0);
    for host in ["a", "b", "c"] {
        symlink(format!("..data/{host}.yaml"), mesh.file(&format!("{host}.yaml"))).unwrap();
    }
    let directory = mesh.directory().to_owned();
    let proxy = TestProxy::of(Mesh::new())
        .set(|settings| settings.config_directories = vec![directory])
        .listen_outbound(8000)
        .ready()
        .await;
    for number in 1..=5 {
        let before = proxy.generation().await;
        version(number);
        assert_eq!(proxy.generation_after(before).await, before + 1);
        fs::remove_dir_all(mesh.file(&format!("..version_{}", number - 1))).unwrap();
        for host in ["a", "b", "c"] {
            assert_eq!(asked(&proxy, host).await, number.to_string());
        }
        assert_eq!(proxy.generation().await, before + 1);
    }
    assert_eq!(proxy.page("/findings").await.lines().filter(|line| line.contains("error")).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_changed_in_one_burst_are_one_generation() {
    const FILES: u32 = 8;
    let mesh = (0..FILES).fold(Mesh::new(), |mesh, file| mesh.service(&format!("r{file}"), "http/8000"));
    let rule = |file: u32, round: u32| answers(&format!("r{file}"), &round.to_string());
    for file in 0..FILES {
        mesh.write(&format!("r{file}.yaml"), &rule(file, 0));
    }
    let proxy = start(mesh).await;
    // A busy machine may pause for longer than the proxy waits for the next change, but not every time.
    for round in 1..=20 {
        let before = proxy.generation().await;
        for file in 0..FILES {
            fs::write(proxy.mesh.file(&format!("r{file}.draft")), rule(file, round)).unwrap();
        }
        for file in 0..FILES {
            let name = |extension| proxy.mesh.file(&format!("r{file}.{extension}"));
            fs::rename(name("draft"), name("yaml")).unwrap();
        }
        eventually("the last file is served", || async {
            let dump = proxy.page("/config_dump").await;
            (dump.matches(&format!("\"inline_string\": \"{round}\"")).count() == FILES as usize).then_some(())
        })
        .await;
        if proxy.generation().await == before + 1 {
            return;
        }
    }
    panic!("in no round were all files one generation");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_may_come_later_go_and_come_again() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("not/there/yet");
    let given = directory.clone();
    let mut proxy = TestProxy::of(Mesh::new())
        .set(|settings| settings.config_directories = vec![given])
        .listen_outbound(8000)
        .start();
    eventually("it says what it waits for", || async {
        proxy.page("/ready").await.contains("not/there/yet").then_some(())
    })
    .await;
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\nspec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 8000}]}\n";
    let fill = |directory: &Path, body: &str| {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join("a.yaml"), format!("{service}---\n{}", answers("a", body))).unwrap();
    };
    fill(&directory, "1");
    proxy.becomes_ready().await;
    becomes(&proxy, "a", "1").await;
    // Gone, it takes nothing with it, and says so.
    fs::rename(&directory, parent.path().join("elsewhere")).unwrap();
    eventually("that it is gone is told", || async {
        proxy.page("/findings").await.contains("cannot be read").then_some(())
    })
    .await;
    assert_eq!(asked(&proxy, "a").await, "1");
    fill(&directory, "2");
    becomes(&proxy, "a", "2").await;
    assert!(!proxy.page("/findings").await.contains("cannot be read"));
    // The same again, with no rest between: the new directory is another one.
    fs::remove_dir_all(&directory).unwrap();
    fill(&directory, "3");
    becomes(&proxy, "a", "3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_a_link_may_be_pointed_elsewhere() {
    let (one, two) = (mesh(&["a"]), mesh(&["a"]));
    for (mesh, body) in [(&one, "1"), (&two, "2")] {
        mesh.write("a.yaml", &answers("a", body));
    }
    let parent = tempfile::tempdir().unwrap();
    let current = parent.path().join("current");
    symlink(one.directory(), &current).unwrap();
    let given = current.clone();
    let proxy = TestProxy::of(Mesh::new())
        .set(|settings| settings.config_directories = vec![given])
        .listen_outbound(8000)
        .ready()
        .await;
    assert_eq!(asked(&proxy, "a").await, "1");
    symlink(two.directory(), parent.path().join("next")).unwrap();
    fs::rename(parent.path().join("next"), &current).unwrap();
    becomes(&proxy, "a", "2").await;
    // And what changes there now is heard.
    two.write("a.yaml", &answers("a", "3"));
    becomes(&proxy, "a", "3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_files_are_followed_too() {
    let elsewhere = tempfile::tempdir().unwrap();
    let (plain, linked) = (elsewhere.path().join("plain.yaml"), elsewhere.path().join("linked.yaml"));
    fs::write(&plain, answers("a", "1")).unwrap();
    fs::create_dir(elsewhere.path().join("real")).unwrap();
    fs::write(elsewhere.path().join("real/file.yaml"), answers("b", "1")).unwrap();
    symlink("real/file.yaml", &linked).unwrap();
    let proxy = TestProxy::of(mesh(&["a", "b"]))
        .config_file(plain.clone())
        .config_file(linked)
        .listen_outbound(8000)
        .ready()
        .await;
    assert_eq!((asked(&proxy, "a").await, asked(&proxy, "b").await), ("1".into(), "1".into()));
    fs::write(&plain, answers("a", "2")).unwrap();
    becomes(&proxy, "a", "2").await;
    fs::write(elsewhere.path().join("real/file.yaml"), answers("b", "2")).unwrap();
    becomes(&proxy, "b", "2").await;
    // One that was named and is gone is an error, not a deletion.
    fs::remove_file(&plain).unwrap();
    eventually("that it is gone is told", || async {
        proxy.page("/findings").await.contains("plain.yaml:1: error").then_some(())
    })
    .await;
    assert_eq!(asked(&proxy, "a").await, "2");
}

/// Links in a directory: that what they lead to changes is heard, not found by looking now and then.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "the time that changes take is what is measured")]
async fn what_links_of_a_directory_lead_to_is_watched() {
    let elsewhere = tempfile::tempdir().unwrap();
    let path = |name: &str| elsewhere.path().join(name);
    for (release, body) in [("1", "1"), ("2", "5")] {
        fs::create_dir(path(release)).unwrap();
        fs::write(path(release).join("a.yaml"), answers("a", body)).unwrap();
    }
    symlink("1", path("current")).unwrap();
    let mesh = mesh(&["a"]);
    symlink(path("current").join("a.yaml"), mesh.file("link.yaml")).unwrap();
    let proxy = start(mesh).await;
    assert_eq!(asked(&proxy, "a").await, "1");
    let begun = std::time::Instant::now();
    // In place, again, by another file, and by another directory.
    for body in ["2", "3"] {
        fs::write(path("1/a.yaml"), answers("a", body)).unwrap();
        becomes(&proxy, "a", body).await;
    }
    fs::write(path("draft"), answers("a", "4")).unwrap();
    fs::rename(path("draft"), path("1/a.yaml")).unwrap();
    becomes(&proxy, "a", "4").await;
    symlink("2", path("next")).unwrap();
    fs::rename(path("next"), path("current")).unwrap();
    becomes(&proxy, "a", "5").await;
    // One that comes later, too.
    fs::write(path("b.yaml"), answers("a", "6")).unwrap();
    fs::remove_file(proxy.mesh.file("link.yaml")).unwrap();
    symlink(path("b.yaml"), proxy.mesh.file("later.yaml")).unwrap();
    becomes(&proxy, "a", "6").await;
    fs::write(path("b.yaml"), answers("a", "7")).unwrap();
    becomes(&proxy, "a", "7").await;
    // Looking alone takes five seconds for each.
    assert!(begun.elapsed() < std::time::Duration::from_secs(15), "{:?}", begun.elapsed());
}

/// Nothing is decided otherwise, and the console says where things are now.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_moves_is_told_where_it_is() {
    let proxy = start(mesh(&["catalog"]).with("rules.yaml", &answers("catalog", "same"))).await;
    becomes(&proxy, "catalog", "same").await;
    let explained = async || {
        let page = "/explain?url=http://catalog:8000/";
        Request::new(http::Method::POST, page).send(proxy.admin()).await.text()
    };
    let before = explained().await;
    assert!(before.contains("rules.yaml:7"), "{before}");
    proxy.mesh.write("moved.yaml", &format!("# Another place.\n\n\n{}", answers("catalog", "same")));
    fs::remove_file(proxy.mesh.file("rules.yaml")).unwrap();
    eventually("it is told where it is", || async {
        let now = explained().await;
        (now.contains("moved.yaml:10") && !now.contains("rules.yaml")).then_some(())
    })
    .await;
}
