//! Reading fields out of an untrusted JSON object, with errors that name the
//! field and what was expected (00 §8).

use serde_json::{Map, Value};
use thiserror::Error;

/// A field that is missing or has the wrong JSON type.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field} must be {expected}")]
pub struct ShapeError {
    field: String,
    expected: &'static str,
}

impl ShapeError {
    pub(crate) fn new(field: impl Into<String>, expected: &'static str) -> Self {
        Self {
            field: field.into(),
            expected,
        }
    }
}

/// An object whose fields are taken out one by one.
///
/// Optional fields read `null` as absent; unknown fields are left alone (02 §1.3).
#[derive(Debug)]
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    pub(crate) fn new(object: Map<String, Value>) -> Self {
        Self(object)
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.0
            .get_mut(name)
            .map(Value::take)
            .filter(|value| !value.is_null())
    }

    pub(crate) fn peek(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub(crate) fn into_inner(self) -> Map<String, Value> {
        self.0
    }

    pub(crate) fn string(&mut self, name: &str) -> Result<String, ShapeError> {
        match self.take(name) {
            Some(Value::String(text)) => Ok(text),
            _ => Err(ShapeError::new(name, "a string")),
        }
    }

    pub(crate) fn non_empty(&mut self, name: &str) -> Result<String, ShapeError> {
        match self.take(name) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text),
            _ => Err(ShapeError::new(name, "a non-empty string")),
        }
    }

    pub(crate) fn optional_string(&mut self, name: &str) -> Result<Option<String>, ShapeError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ShapeError::new(name, "a string")),
        }
    }

    pub(crate) fn optional_bool(&mut self, name: &str) -> Result<Option<bool>, ShapeError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(ShapeError::new(name, "true or false")),
        }
    }

    /// A string; anything else reads as absent (06 §1.1, "unchecked").
    pub(crate) fn lenient_string(&mut self, name: &str) -> Option<String> {
        match self.take(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// A flag; anything else reads as false.
    pub(crate) fn lenient_flag(&mut self, name: &str) -> bool {
        self.take(name) == Some(Value::Bool(true))
    }

    /// A number, cut to a whole one that is not negative; anything else reads
    /// as absent.
    pub(crate) fn lenient_count(&mut self, name: &str) -> Option<usize> {
        self.take(name)?.as_f64().map(whole)
    }

    /// A number, the same way.
    pub(crate) fn count(&mut self, name: &str) -> Result<usize, ShapeError> {
        self.lenient_count(name)
            .ok_or_else(|| ShapeError::new(name, "a number"))
    }

    pub(crate) fn object(&mut self, name: &str) -> Result<Map<String, Value>, ShapeError> {
        match self.take(name) {
            Some(Value::Object(object)) => Ok(object),
            _ => Err(ShapeError::new(name, "an object")),
        }
    }

    pub(crate) fn optional_object(
        &mut self,
        name: &str,
    ) -> Result<Option<Map<String, Value>>, ShapeError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(_) => Err(ShapeError::new(name, "an object")),
        }
    }

    pub(crate) fn optional_strings(
        &mut self,
        name: &str,
    ) -> Result<Option<Vec<String>>, ShapeError> {
        self.take(name)
            .map(|value| strings(value).ok_or_else(|| ShapeError::new(name, "an array of strings")))
            .transpose()
    }

    pub(crate) fn optional_array(&mut self, name: &str) -> Result<Option<Vec<Value>>, ShapeError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(_) => Err(ShapeError::new(name, "an array")),
        }
    }
}

fn whole(number: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates, which is what a clamp wants"
    )]
    let whole = number as usize;
    whole
}

/// The strings of an array, or `None` when it is no array of strings.
pub(crate) fn strings(value: Value) -> Option<Vec<String>> {
    let Value::Array(items) = value else {
        return None;
    };
    items
        .into_iter()
        .map(|item| match item {
            Value::String(text) => Some(text),
            _ => None,
        })
        .collect()
}
