//! What somebody else does around each call of a built-in tool (05 §15.3).
//!
//! Tools do not know who asks or listens: the conversation puts its hooks
//! here. Invariant: what stands before a call decides whether and with which
//! arguments it runs; what stands after it may add to the result, no more.

use std::pin::Pin;

use serde_json::{Map, Value};

use super::tool::{ToolCall, ToolContext, ToolOutcome};

/// What becomes of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Before {
    /// It runs, with these arguments laid over its own.
    Run(Map<String, Value>),
    /// It does not run: this is its result.
    Refuse(ToolOutcome),
}

/// Stands around the calls of one turn.
pub trait Around: Send + Sync {
    /// Asked before a call runs. Dropped when the turn is aborted.
    fn before<'a>(
        &'a self,
        call: &'a ToolCall,
        context: &'a ToolContext,
    ) -> Pin<Box<dyn Future<Output = Before> + Send + 'a>>;

    /// Told after a call ran; may add to its outcome.
    fn after<'a>(
        &'a self,
        call: &'a ToolCall,
        context: &'a ToolContext,
        outcome: &'a mut ToolOutcome,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}
