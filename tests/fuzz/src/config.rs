//! YAML, from text to a snapshot.

use config::compile::{Compiled, ExplicitListener, ListenTarget, Mode, Proxy, Request, compile_as};
use config::store::Store;

/// A mesh that objects of an input may refer to.
const MESH: &str = include_str!("mesh.yaml");

/// The first byte says for which kind of proxy; the rest is a file, or two with a line of `+++` between: what it holds first,
/// and what then. Whatever is in it, the mesh beside it is compiled; the same text again changes nothing; and what is gone
/// leaves nothing.
pub fn config(bytes: &[u8]) {
    let Some((mode, text)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let mode = match mode % 3 {
        0 => Mode::Explicit,
        1 => Mode::Sidecar,
        _ => Mode::Gateway,
    };
    let mut store = Store::new();
    store.read("a.yaml", MESH);
    for text in text.split("\n+++\n") {
        store.read("b.yaml", text);
        let compiled = run(&store, mode);
        store.read("b.yaml", text);
        let again = run(&store, mode);
        assert!(crate::same(&again.update, &compiled.update), "the same text changes something");
        store.settle("b.yaml");
        run(&store, mode);
    }
    store.read("b.yaml", "");
    store.settle("b.yaml");
    let mut alone = Store::new();
    alone.read("a.yaml", MESH);
    let (left, mesh) = (run(&store, mode), run(&alone, mode));
    assert!(crate::same(&left.update, &mesh.update), "what is gone has left something");
}

fn run(store: &Store, mode: Mode) -> Compiled {
    let objects = store.objects();
    let proxy = Proxy::of_pod(&objects, "shop", "web-1", &objects.mesh.proxy_metadata());
    let address = ([127, 0, 0, 1], 0).into();
    let listeners = vec![ExplicitListener { address, target: ListenTarget::Outbound { port: 8000 } }];
    let request = Request { listeners, mode, ..Request::default() };
    let compiled = compile_as(&objects, &proxy.unwrap_or_default(), &request);
    let [clusters, _, listeners] = weft::fuzz::run(compiled.update.clone());
    assert!(clusters > 0 && listeners > 0, "the mesh is lost");
    compiled
}
