//! Opening one socket of the relay (01 §8.1). Tests dial pipes.

use futures_util::future::BoxFuture;
use reqwest::Url;

use crate::websocket::{Wire, upgrade};

/// Opens upgraded connections.
pub(super) trait Dial: Send + Sync {
    /// Connects and upgrades; the caller sets the deadline. The error is a text
    /// for people without secrets: every one of them is worth another try.
    fn dial<'a>(
        &'a self,
        url: &'a Url,
        bearer: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Wire>, String>>;
}

impl Dial for reqwest::Client {
    fn dial<'a>(
        &'a self,
        url: &'a Url,
        bearer: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Wire>, String>> {
        Box::pin(upgrade(self, url, bearer, &[]))
    }
}
