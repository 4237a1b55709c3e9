//! Which area carries out which command: the one table of [`super::Device`].
//!
//! Invariant: every command type of the catalogue that no conversation handles
//! stands here, with a handler or with the reason why it is declined (06 §17).

use serde_json::{Map, Value};

use super::call::{Call, Pending};
use super::directories;

/// One command type.
#[derive(Debug)]
pub(super) struct Route {
    /// `type` of the command.
    pub(super) name: &'static str,
    /// The fields that a failed answer must have, as JSON text of an object (06 §1.1).
    empty: &'static str,
    /// Who does it.
    pub(super) handler: Handler,
}

/// How a command is carried out.
#[derive(Debug)]
pub(super) enum Handler {
    /// By a task of its own that ends in the answer.
    Job(fn(Call) -> Pending),
    /// Not at all, for this reason.
    Decline(&'static str),
}

impl Route {
    /// The mandatory fields of a failed answer.
    pub(super) fn empty(&self) -> Map<String, Value> {
        serde_json::from_str(self.empty).unwrap_or_default()
    }
}

const NOT_HERE: &str = "This version of letta does not support this command.";

/// A command that is in the catalogue and not in [`ROUTES`].
static UNKNOWN: Route = Route {
    name: "",
    empty: "{}",
    handler: Handler::Decline(NOT_HERE),
};

/// The route of `kind`.
pub(super) fn find(kind: &str) -> &'static Route {
    ROUTES
        .iter()
        .find(|route| route.name == kind)
        .unwrap_or(&UNKNOWN)
}

/// A row of the table.
const fn job(name: &'static str, empty: &'static str, job: fn(Call) -> Pending) -> Route {
    Route {
        name,
        empty,
        handler: Handler::Job(job),
    }
}

static ROUTES: &[Route] = &[
    job("get_cwd_map", "{}", |call| {
        Box::pin(directories::get_cwd_map(call))
    }),
    job("set_boot_working_directory", "{}", |call| {
        Box::pin(directories::set_boot(call))
    }),
];
