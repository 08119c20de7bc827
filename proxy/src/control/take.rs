//! What has changed among the files comes into the store.

use config::store::Store;

use super::files::{Change, Content};

/// Takes in what changed.
pub(super) fn take(store: &mut Store, change: Change) {
    match change {
        // The text is whole: what is missing in it is gone.
        Change::Text(path, content, text) => {
            let file = path.display().to_string();
            read(store, &file, content, &text);
            store.settle(&file);
        }
        // Its objects hold until it is gone, but another file may have them by then.
        Change::Missing(path, content) => read(store, &path.display().to_string(), content, ""),
        Change::Gone(path) => store.remove(&path.display().to_string()),
    }
}

fn read(store: &mut Store, file: &str, content: Content, text: &str) {
    match content {
        Content::Objects => store.read(file, text),
        Content::MeshConfig => store.read_mesh(file, text),
    };
}
