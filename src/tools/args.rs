//! The arguments of a tool call: lenient where models slip, exact in what they
//! say when a value cannot be used (04 §5.6, §8).
//!
//! Invariant: whatever JSON arrives, a getter returns a value or an
//! [`ArgError`] that names the tool and the argument; nothing panics. `null`
//! counts as absent, extra arguments are ignored.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// An argument that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgError {
    /// A required argument is absent or null.
    #[error("{tool} tool missing required parameter: {name}. Received parameters: {received}")]
    Missing {
        /// The tool.
        tool: &'static str,
        /// The argument.
        name: &'static str,
        /// The names that did arrive, comma separated.
        received: String,
    },
    /// The value has another type.
    #[error("{tool}: Parameter '{name}' must be {expected}, received {received}")]
    Type {
        /// The tool.
        tool: &'static str,
        /// The argument, or an element of it: `edits[2].old_string`.
        name: String,
        /// What was wanted, with its article.
        expected: &'static str,
        /// The JSON type that arrived.
        received: &'static str,
    },
}

/// Typed access to the arguments of one call.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    tool: &'static str,
    path: Option<(&'static str, usize)>,
    map: &'a Map<String, Value>,
}

impl<'a> Args<'a> {
    /// The arguments of a call of `tool`.
    pub fn new(tool: &'static str, map: &'a Map<String, Value>) -> Self {
        Self {
            tool,
            path: None,
            map,
        }
    }

    /// A string that must be there.
    pub fn string(&self, name: &'static str) -> Result<&'a str, ArgError> {
        self.required(name, self.opt_string(name)?)
    }

    /// A string, if given.
    pub fn opt_string(&self, name: &'static str) -> Result<Option<&'a str>, ArgError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.mistyped(name, "a string", other)),
        }
    }

    /// A whole number, if given: floats are floored, numeric strings read,
    /// values beyond `i64` held at its ends, blank strings taken as absent.
    pub fn opt_integer(&self, name: &'static str) -> Result<Option<i64>, ArgError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let number = match value {
            Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(floor)),
            Value::String(text) if text.trim().is_empty() => return Ok(None),
            Value::String(text) => text.trim().parse().ok().or_else(|| {
                let number: f64 = text.trim().parse().ok()?;
                number.is_finite().then(|| floor(number))
            }),
            _ => None,
        };
        match number {
            Some(number) => Ok(Some(number)),
            None => Err(self.mistyped(name, "a number", value)),
        }
    }

    /// An id: a string, or a number in its place.
    pub fn id(&self, name: &'static str) -> Result<String, ArgError> {
        match self.get(name) {
            Some(Value::Number(number)) => Ok(number
                .as_f64()
                .map_or_else(|| number.to_string(), |number| number.to_string())),
            _ => Ok(self.string(name)?.trim().to_owned()),
        }
    }

    /// Milliseconds within `least..=most`, which are positive.
    pub fn millis(
        &self,
        name: &'static str,
        default: i64,
        (least, most): (i64, i64),
    ) -> Result<Duration, ArgError> {
        let asked = self.opt_integer(name)?.unwrap_or(default);
        Ok(Duration::from_millis(
            asked.clamp(least, most).unsigned_abs(),
        ))
    }

    /// A count: like [`Args::opt_integer`], negatives held at 0.
    pub fn opt_count(&self, name: &'static str) -> Result<Option<usize>, ArgError> {
        Ok(self
            .opt_integer(name)?
            .map(|number| usize::try_from(number.max(0)).unwrap_or(usize::MAX)))
    }

    /// A flag: a boolean or one of the strings `true` and `false`.
    pub fn flag(&self, name: &'static str, default: bool) -> Result<bool, ArgError> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::String(text)) if text.trim().eq_ignore_ascii_case("true") => Ok(true),
            Some(Value::String(text)) if text.trim().eq_ignore_ascii_case("false") => Ok(false),
            Some(other) => Err(self.mistyped(name, "a boolean", other)),
        }
    }

    /// A list that must be there.
    pub fn array(&self, name: &'static str) -> Result<&'a [Value], ArgError> {
        self.required(name, self.opt_array(name)?)
    }

    /// A list, if given.
    pub fn opt_array(&self, name: &'static str) -> Result<Option<&'a [Value]>, ArgError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(self.mistyped(name, "an array", other)),
        }
    }

    /// A list of strings; empty when not given.
    pub fn strings(&self, name: &'static str) -> Result<Vec<&'a str>, ArgError> {
        self.opt_array(name)?
            .unwrap_or_default()
            .iter()
            .enumerate()
            .map(|(index, item)| {
                item.as_str().ok_or_else(|| {
                    self.mistyped_as(format!("{}[{index}]", self.label(name)), "a string", item)
                })
            })
            .collect()
    }

    /// An object, if given.
    pub fn opt_object(&self, name: &'static str) -> Result<Option<Args<'a>>, ArgError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Args {
                tool: self.tool,
                path: None,
                map,
            })),
            Some(other) => Err(self.mistyped(name, "an object", other)),
        }
    }

    /// The objects of a list that must be there.
    pub fn objects(&self, name: &'static str) -> Result<Vec<Args<'a>>, ArgError> {
        self.array(name)?
            .iter()
            .enumerate()
            .map(|(index, item)| match item {
                Value::Object(map) => Ok(Args {
                    tool: self.tool,
                    path: Some((name, index)),
                    map,
                }),
                other => Err(self.mistyped_as(format!("{name}[{index}]"), "an object", other)),
            })
            .collect()
    }

    /// A value of any type that must be there.
    pub fn given(&self, name: &'static str) -> Result<&'a Value, ArgError> {
        self.required(name, self.get(name))
    }

    /// The raw value, unless absent or null.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn required<T>(&self, name: &'static str, value: Option<T>) -> Result<T, ArgError> {
        value.ok_or_else(|| match self.path {
            Some(_) => ArgError::Type {
                tool: self.tool,
                name: self.label(name),
                expected: "given",
                received: "null",
            },
            None => ArgError::Missing {
                tool: self.tool,
                name,
                received: received_names(self.map),
            },
        })
    }

    fn mistyped(&self, name: &str, expected: &'static str, value: &Value) -> ArgError {
        self.mistyped_as(self.label(name), expected, value)
    }

    fn mistyped_as(&self, name: String, expected: &'static str, value: &Value) -> ArgError {
        ArgError::Type {
            tool: self.tool,
            name,
            expected,
            received: type_name(value),
        }
    }

    fn label(&self, name: &str) -> String {
        match self.path {
            Some((list, index)) => format!("{list}[{index}].{name}"),
            None => name.to_owned(),
        }
    }
}

/// At most so many names of arguments are repeated in an error.
const NAMES_SHOWN: usize = 20;

fn received_names(map: &Map<String, Value>) -> String {
    map.keys()
        .take(NAMES_SHOWN)
        .map(|name| name.chars().take(64).collect::<String>())
        .collect::<Vec<_>>()
        .join(", ")
}

/// The JSON type of a value as error texts call it.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.as_f64().is_some_and(|f| f.fract() == 0.0) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a float beyond i64 is held at its ends, which is what is wanted"
)]
fn floor(number: f64) -> i64 {
    number.floor() as i64
}

/// The dialect named in most tools' schemas (04 §3).
pub(crate) const DRAFT_07: &str = "http://json-schema.org/draft-07/schema#";

/// The dialect of the few tools whose schemas are newer (04 §3).
pub(crate) const DRAFT_2020_12: &str = "https://json-schema.org/draft/2020-12/schema";

/// A tool's parameter schema: `properties`, a JSON text (which costs far less
/// code than building the value), of which `required` must be given.
#[expect(
    clippy::expect_used,
    reason = "a constant that every test of a toolbox reads"
)]
pub(crate) fn schema(properties: impl ToString, required: &[&str], dialect: &str) -> Value {
    let properties = serde_json::from_str(&properties.to_string());
    let properties: Value = properties.expect("the schema of a tool is JSON");
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
        "$schema": dialect,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("not an object: {other}"),
        }
    }

    #[test]
    fn numbers_come_as_numbers_strings_and_floats() {
        let cases = [
            (json!(7), Some(7)),
            (json!(-3), Some(-3)),
            (json!(2.9), Some(2)),
            (json!(-2.1), Some(-3)),
            (json!("5000"), Some(5000)),
            (json!(" 12.7 "), Some(12)),
            (json!(1e300), Some(i64::MAX)),
            (json!(u64::MAX), Some(i64::MAX)),
            (json!(""), None),
            (json!(null), None),
        ];
        for (value, expected) in cases {
            let map = map(json!({"n": value}));
            assert_eq!(
                Args::new("T", &map).opt_integer("n"),
                Ok(expected),
                "{map:?}"
            );
        }
        for bad in [
            json!("ten"),
            json!(true),
            json!([1]),
            json!({}),
            json!("inf"),
        ] {
            let map = map(json!({"n": bad}));
            assert!(Args::new("T", &map).opt_integer("n").is_err(), "{map:?}");
        }
    }

    #[test]
    fn ids_and_durations_are_read_from_texts_and_numbers() {
        let map = map(json!({"a": " bash_3 ", "b": 2, "c": 2.0, "d": "400", "e": -7, "f": true}));
        let args = Args::new("T", &map);
        assert_eq!(args.id("a").unwrap(), "bash_3");
        assert_eq!(
            (args.id("b").unwrap(), args.id("c").unwrap()),
            ("2".into(), "2".into())
        );
        assert!(args.id("f").is_err() && args.id("none").is_err());
        let millis = |name| args.millis(name, 9, (5, 300)).unwrap().as_millis();
        assert_eq!(["d", "e", "none"].map(millis), [300, 5, 9]);
        assert!(args.millis("a", 9, (5, 300)).is_err());
    }

    #[test]
    fn flags_come_as_booleans_and_their_names() {
        let map = map(json!({"a": true, "b": "True", "c": "false", "d": null, "e": 1}));
        let args = Args::new("T", &map);
        assert_eq!(args.flag("a", false), Ok(true));
        assert_eq!(args.flag("b", false), Ok(true));
        assert_eq!(args.flag("c", true), Ok(false));
        assert_eq!(args.flag("d", true), Ok(true));
        assert_eq!(args.flag("absent", true), Ok(true));
        assert_eq!(
            args.flag("e", true).unwrap_err().to_string(),
            "T: Parameter 'e' must be a boolean, received integer"
        );
    }

    #[test]
    fn errors_name_the_tool_the_argument_and_what_arrived() {
        let map =
            map(json!({"x": 1, "path": [1], "items": [{"s": {}}, {}, 3], "names": ["a", 2.5]}));
        let args = Args::new("Grep", &map);
        assert_eq!(
            args.string("pattern").unwrap_err().to_string(),
            "Grep tool missing required parameter: pattern. Received parameters: x, path, items, names"
        );
        assert_eq!(
            args.string("path").unwrap_err().to_string(),
            "Grep: Parameter 'path' must be a string, received array"
        );
        assert_eq!(
            args.objects("items").unwrap_err().to_string(),
            "Grep: Parameter 'items[2]' must be an object, received integer"
        );
        assert_eq!(
            args.strings("names").unwrap_err().to_string(),
            "Grep: Parameter 'names[1]' must be a string, received number"
        );
        let nested = self::map(json!({"items": [{"s": {}}, {}]}));
        let items = Args::new("Grep", &nested).objects("items").unwrap();
        assert_eq!(
            items[0].string("s").unwrap_err().to_string(),
            "Grep: Parameter 'items[0].s' must be a string, received object"
        );
        assert_eq!(
            items[1].string("s").unwrap_err().to_string(),
            "Grep: Parameter 'items[1].s' must be given, received null"
        );
    }
}
