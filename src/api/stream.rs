//! The event stream of a run: chunks as they come (03 §4.2).
//!
//! Invariant: a chunk keeps the text that the server sent, so it is forwarded
//! without being taken apart; only the fields that every chunk is routed by are
//! read eagerly. After an error, `[DONE]` aside, nothing more is given.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};
use thiserror::Error;

use super::error::{detail_of, message_of, reason_of};
use super::sse::{Decoder, Event};

/// One JSON object of the stream.
#[derive(Clone)]
pub struct Chunk {
    text: String,
    /// `message_type`, empty when the object has none.
    pub message_type: Box<str>,
    /// `id`.
    pub id: Option<Box<str>>,
    /// `otid`.
    pub otid: Option<Box<str>>,
    /// `run_id`.
    pub run_id: Option<Box<str>>,
    /// `seq_id`.
    pub seq_id: Option<i64>,
    /// Whether the object has a field `type`, which a forwarded one gets (03 §6.1).
    pub has_type: bool,
}

/// The fields of [`Chunk`] as they stand in the object; the rest is only skimmed.
#[derive(serde::Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    message_type: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default)]
    id: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default)]
    otid: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default)]
    run_id: Option<std::borrow::Cow<'a, str>>,
    #[serde(default)]
    seq_id: Option<i64>,
    #[serde(rename = "type", default)]
    kind: Option<serde::de::IgnoredAny>,
}

impl Chunk {
    /// Reads the data of an event.
    ///
    /// # Errors
    /// When the text is no JSON object.
    pub fn parse(text: String) -> Result<Self, StreamError> {
        // A derived struct would read an array, too.
        if !text.trim_start().starts_with('{') {
            return Err(StreamError::NotJson);
        }
        let head = match serde_json::from_str::<Head<'_>>(&text) {
            Ok(head) => Heads::from(head),
            // A field of another type, or one that comes twice: no reason to fail.
            Err(_) => Heads::from(&whole(&text)?),
        };
        Ok(Self {
            text,
            message_type: head.message_type,
            id: head.id,
            otid: head.otid,
            run_id: head.run_id,
            seq_id: head.seq_id,
            has_type: head.has_type,
        })
    }

    /// The JSON text of the object, as the server sent it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The whole object, parsed anew at each call.
    pub fn object(&self) -> Map<String, Value> {
        whole(&self.text).unwrap_or_default()
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk")
            .field("message_type", &self.message_type)
            .field("run_id", &self.run_id)
            .field("seq_id", &self.seq_id)
            .finish_non_exhaustive()
    }
}

fn whole(text: &str) -> Result<Map<String, Value>, StreamError> {
    serde_json::from_str(text).map_err(|_| StreamError::NotJson)
}

/// Owned head fields.
struct Heads {
    message_type: Box<str>,
    id: Option<Box<str>>,
    otid: Option<Box<str>>,
    run_id: Option<Box<str>>,
    seq_id: Option<i64>,
    has_type: bool,
}

impl From<Head<'_>> for Heads {
    fn from(head: Head<'_>) -> Self {
        let own = |text: Option<std::borrow::Cow<'_, str>>| text.map(|text| text.into());
        Self {
            message_type: own(head.message_type).unwrap_or_default(),
            id: own(head.id),
            otid: own(head.otid),
            run_id: own(head.run_id),
            seq_id: head.seq_id,
            has_type: head.kind.is_some(),
        }
    }
}

impl From<&Map<String, Value>> for Heads {
    fn from(object: &Map<String, Value>) -> Self {
        let own = |name: &str| object.get(name).and_then(Value::as_str).map(Box::from);
        Self {
            message_type: own("message_type").unwrap_or_default(),
            id: own("id"),
            otid: own("otid"),
            run_id: own("run_id"),
            seq_id: object.get("seq_id").and_then(Value::as_i64),
            has_type: object.contains_key("type"),
        }
    }
}

/// Why a stream ended before its end (03 §5.3).
#[derive(Clone, Error)]
pub enum StreamError {
    /// The server sent `event: error`; the body is its data.
    #[error("{}", server_message(.body))]
    Server {
        /// JSON, or the text as a JSON string.
        body: Arc<Value>,
    },
    /// The connection broke.
    #[error("Connection error.")]
    Connection {
        /// What the network said: for logs.
        reason: Arc<str>,
    },
    /// An event without name whose data is no JSON object.
    #[error("The server sent an event that is not a JSON object.")]
    NotJson,
    /// An event longer than anything the API sends.
    #[error("The server sent an event of more than 16 MiB.")]
    Oversized,
}

impl StreamError {
    /// The text that failures are classified by (03 §11.1).
    pub fn detail(&self) -> String {
        match self {
            Self::Server { body } => detail_of(body).map(str::to_owned),
            _ => None,
        }
        .unwrap_or_else(|| self.to_string())
    }
}

impl fmt::Debug for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server { .. } => f.write_str("Server"),
            Self::Connection { reason } => write!(f, "Connection({reason})"),
            Self::NotJson => f.write_str("NotJson"),
            Self::Oversized => f.write_str("Oversized"),
        }
    }
}

fn server_message(body: &Value) -> String {
    body.as_str()
        .map_or_else(|| message_of(body), str::to_owned)
}

/// An open event stream. Dropping it closes the connection.
#[derive(Debug)]
pub struct SseStream {
    response: reqwest::Response,
    decoder: Decoder,
    done: bool,
    ended: bool,
}

impl SseStream {
    /// Takes over an answer whose media type has been checked.
    pub(super) fn new(response: reqwest::Response) -> Self {
        Self {
            response,
            decoder: Decoder::default(),
            done: false,
            ended: false,
        }
    }

    /// Whether the server closed the stream with `[DONE]`.
    pub fn saw_done(&self) -> bool {
        self.done
    }

    /// The next chunk, or `None` at the end of the stream.
    ///
    /// Cancel safe: a dropped call loses nothing, so it may stand in `select!`.
    pub async fn next(&mut self) -> Option<Result<Chunk, StreamError>> {
        while !self.ended {
            let outcome = match self.decoder.next_event() {
                Some(Ok(event)) => self.judge(event),
                Some(Err(_)) => Some(Err(StreamError::Oversized)),
                None => match self.response.chunk().await {
                    Ok(Some(piece)) => {
                        self.decoder.feed(piece);
                        None
                    }
                    Ok(None) => {
                        self.ended = true;
                        None
                    }
                    Err(error) => Some(Err(StreamError::Connection {
                        reason: reason_of(&error.without_url()).into(),
                    })),
                },
            };
            if let Some(outcome) = outcome {
                self.ended |= outcome.is_err();
                return Some(outcome);
            }
        }
        None
    }

    /// What an event means; `None` for those without meaning.
    fn judge(&mut self, event: Event) -> Option<Result<Chunk, StreamError>> {
        if self.done {
            return None;
        }
        if event.data.starts_with("[DONE]") {
            self.done = true;
            return None;
        }
        match event.name.as_str() {
            "" => Some(Chunk::parse(event.data)),
            "error" => {
                let body =
                    serde_json::from_str(&event.data).unwrap_or_else(|_| Value::String(event.data));
                Some(Err(StreamError::Server {
                    body: Arc::new(body),
                }))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(body: &'static str) -> SseStream {
        SseStream::new(reqwest::Response::from(axum::http::Response::new(body)))
    }

    async fn drain(body: &'static str) -> (Vec<String>, Option<StreamError>, bool) {
        let mut stream = stream(body);
        let (mut chunks, mut failed) = (Vec::new(), None);
        while let Some(next) = stream.next().await {
            match next {
                Ok(chunk) => chunks.push(chunk.text().to_owned()),
                Err(error) => failed = Some(error),
            }
        }
        (chunks, failed, stream.saw_done())
    }

    #[tokio::test]
    async fn chunks_keep_their_text_and_done_ends_them() {
        let body = "data: {\"a\": 1,  \"a2\":2}\n\nevent: other\ndata: no\n\n: ping\n\ndata: [DONE]\n\ndata: junk\n\n";
        let (chunks, failed, done) = drain(body).await;
        assert_eq!(chunks, ["{\"a\": 1,  \"a2\":2}"]);
        assert!(failed.is_none() && done);
    }

    #[tokio::test]
    async fn an_end_without_done_is_no_error() {
        let (chunks, failed, done) = drain("data: {}\n\n").await;
        assert!(chunks.len() == 1 && failed.is_none() && !done);
    }

    #[tokio::test]
    async fn an_error_event_ends_the_stream_with_its_body() {
        let body =
            "data: {}\n\nevent: error\ndata: {\"message\":\"m\",\"detail\":\"d\"}\n\ndata: {}\n\n";
        let (chunks, failed, _) = drain(body).await;
        let failed = failed.unwrap();
        assert_eq!((chunks.len(), failed.to_string().as_str()), (1, "m"));
        assert_eq!(failed.detail(), "d");
        assert_eq!(format!("{failed:?}"), "Server");

        let (_, failed, _) = drain("event: error\ndata: plain words\n\n").await;
        assert_eq!(failed.unwrap().to_string(), "plain words");
    }

    #[tokio::test]
    async fn what_is_no_object_ends_the_stream() {
        for body in ["data: {\"a\":\n\n", "data: [1]\n\n", "data: nonsense\n\n"] {
            let (_, failed, _) = drain(body).await;
            assert!(matches!(failed, Some(StreamError::NotJson)), "{body}");
        }
    }

    #[test]
    fn head_fields_are_read_whatever_their_shape() {
        let text = r#"{"message_type":"ping","id":"m1","run_id":"r","seq_id":4,"type":"x"}"#;
        let chunk = Chunk::parse(text.into()).unwrap();
        assert_eq!(&*chunk.message_type, "ping");
        assert_eq!(
            (chunk.run_id.as_deref(), chunk.seq_id),
            (Some("r"), Some(4))
        );
        assert!(chunk.has_type && chunk.id.as_deref() == Some("m1"));

        let odd = r#"{"message_type":"a","message_type":"b","seq_id":"x","run_id":null}"#;
        let chunk = Chunk::parse(odd.into()).unwrap();
        assert_eq!(&*chunk.message_type, "b");
        assert_eq!((chunk.run_id, chunk.seq_id), (None, None));
        assert_eq!(Chunk::parse("{}".into()).unwrap().object().len(), 0);
    }
}
