//! The arguments of a search, over a small tree: nothing panics, and what is
//! found is in the tree.
//!
//! Lines of the input: the pattern, a glob, a file type.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use letta::tools::search::{Budget, GlobRule, Pattern, Query, Tree, Wanted, grep, list};
use libfuzzer_sys::fuzz_target;
use tokio_util::sync::CancellationToken;

static TREE: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = tempfile::tempdir().unwrap().keep();
    std::fs::create_dir(root.join("sub")).unwrap();
    std::fs::write(root.join("a.txt"), "one\ntwo\n\nthree é\n").unwrap();
    std::fs::write(root.join("sub/b.rs"), "fn main() {}\r\n").unwrap();
    std::fs::write(root.join("bin"), b"x\0y\xff\n").unwrap();
    root
});

fuzz_target!(|input: &str| {
    let mut lines = input.split('\n');
    let pattern = lines.next().unwrap_or_default();
    let (glob, file_type) = (lines.next(), lines.next());
    let mut tree = Tree::new(TREE.clone());
    tree.glob = glob.map(|glob| GlobRule::new(glob, &[&TREE]));
    tree.file_type = file_type.filter(|name| !name.is_empty()).map(String::from);
    let budget = || Budget::new(CancellationToken::new(), Duration::from_secs(5));
    if let Ok(listed) = list(&tree, &budget()) {
        assert!(listed.paths.iter().all(|path| path.starts_with(&*TREE)));
    }
    let pattern = Pattern {
        text: pattern.to_owned(),
        multiline: input.len() % 2 == 0,
        ..Pattern::default()
    };
    let Ok(query) = Query::new(&pattern) else { return };
    let wanted = Wanted::Lines { max: 10, before: 1, after: 1, totals: false };
    if let Ok(found) = grep(&tree, &query, wanted, &budget()) {
        assert!(found.files.iter().all(|(path, _)| path.starts_with(&*TREE)));
    }
});
