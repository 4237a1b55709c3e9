//! The documents say what the code says.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join(name)).unwrap_or_default()
}

/// The names in every dependency table of a manifest.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines().filter(|line| !line.starts_with('#')) {
        if let Some(section) = line.strip_prefix('[') {
            inside = section.trim_end_matches(']').ends_with("dependencies");
        } else if let Some((name, _)) = line.split_once(['=', '.']).filter(|_| inside) {
            names.insert(name.trim().to_owned());
        }
    }
    names
}

/// The crates that stand in the first column of a table.
fn documented() -> BTreeSet<String> {
    read("docs/dependencies.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[test]
fn every_dependency_has_its_reason() {
    let used = dependencies(&read("Cargo.toml"));
    assert!(
        used.contains("tokio") && used.contains("tikv-jemallocator") && used.contains("proptest")
    );
    let documented = documented();
    let missing: Vec<_> = used.difference(&documented).collect();
    assert!(
        missing.is_empty(),
        "docs/dependencies.md does not name {missing:?}"
    );
    let stale: Vec<_> = documented.difference(&used).collect();
    assert!(
        stale.is_empty(),
        "docs/dependencies.md names {stale:?}, which nothing uses"
    );
}

#[test]
fn the_local_cloud_brings_nothing_of_its_own() {
    let own = dependencies(&read("local-cloud/Cargo.toml"));
    assert!(own.contains("tokio"));
    let documented = documented();
    let missing: Vec<_> = own.difference(&documented).collect();
    assert!(
        missing.is_empty(),
        "docs/dependencies.md does not name {missing:?}"
    );
}
