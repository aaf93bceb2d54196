//! The committed corpus of the fuzz targets, replayed in every `cargo test`. A crash that the
//! fuzzer finds becomes one more file there.

#[path = "../fuzz/bodies.rs"]
#[allow(unreachable_pub)]
mod bodies;

use std::path::Path;

fn replay(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).expect("the corpus is there") {
        let path = entry.expect("readable").path();
        println!("{}", path.display());
        body(&std::fs::read(&path).expect("readable"));
        files += 1;
    }
    assert!(files >= 5, "{target} has only {files} files");
}

#[test]
fn packet() {
    replay("packet", bodies::packet);
}

#[test]
fn options() {
    replay("options", bodies::options);
}

#[test]
fn session() {
    replay("session", bodies::session);
}

#[test]
fn client() {
    replay("client", bodies::client);
}

#[test]
fn names() {
    replay("names", bodies::names);
}

#[test]
fn admission() {
    replay("admission", bodies::admission);
}
