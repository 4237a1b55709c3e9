//! Listing the files of a tree.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::keep::{Keep, Weight};
use super::{Budget, SearchError, Stop, Tree, Troubles};

/// More paths are not kept, only counted.
const MAX_PATHS: usize = 200_000;

/// Nor are more bytes of paths.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// The files of a tree.
#[derive(Debug)]
pub struct Listed {
    /// The first of them, sorted.
    pub paths: Vec<PathBuf>,
    /// How many there are.
    pub total: usize,
    /// What could not be listed.
    pub troubles: Troubles,
    /// Why the listing is not complete.
    pub stopped: Option<Stop>,
}

/// Lists the files of a tree, sorted by path.
pub fn list(tree: &Tree, budget: &Budget) -> Result<Listed, SearchError> {
    let kept = Mutex::new((
        Keep::new(Weight {
            items: MAX_PATHS,
            bytes: MAX_BYTES,
        }),
        0_usize,
    ));
    let walked = tree.visit(budget, &|| {
        Box::new(|path, _| {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.1 += 1;
            kept.0
                .insert(path.to_path_buf(), (), Weight { items: 1, bytes: 0 });
            Ok(())
        })
    })?;
    let (kept, total) = kept.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(stop) = walked.stopped
        && total == 0
    {
        return Err(SearchError::Stopped(stop));
    }
    Ok(Listed {
        paths: kept.into_sorted().map(|(path, ())| path).collect(),
        total,
        troubles: walked.troubles,
        stopped: walked.stopped,
    })
}
