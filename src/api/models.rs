//! Models that the server offers (03 §2.3, 06 §7). Objects pass through unchanged.

use reqwest::Method;
use serde_json::Value;

use super::client::{Client, Path};
use super::error::ApiError;

impl Client {
    /// Every model, as the server describes it.
    pub async fn models(&self) -> Result<Vec<Value>, ApiError> {
        let call = self.call(Method::GET, Path::at("/v1/models/"));
        call.parsed().await
    }
}
