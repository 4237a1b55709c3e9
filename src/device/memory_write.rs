//! Changing one file of an agent's memory: `write_memory_file` and
//! `delete_memory_file` (06 §6.5).
//!
//! Invariant: clients look at the server when they hear of a change, so they
//! hear of it after the push, or after eight seconds of it. A commit that is
//! refused leaves the file as it was.

use std::io;
use std::time::Duration;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Value, json};

use super::call::{Answer, Call, Failure, push};
use super::memory::{Encoding, ready, touched, updated};
use crate::memory::{self, Author, Checkout, RelativePath};
use crate::state::atomic::read_bounded;

/// How long the answer waits for the push.
const PUSH: Duration = Duration::from_secs(8);
/// The largest file that can be put back.
const MAX_FILE: u64 = 25 * 1024 * 1024;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

pub(super) async fn write(mut call: Call) -> Answer {
    let content = call.fields.string("content");
    let change = Change::read(&mut call, "Update")?;
    let encoding = Encoding::of(&mut call)?;
    let content = content?;
    let bytes = match encoding {
        Encoding::Utf8 => content.into_bytes(),
        Encoding::Base64 => {
            let plain: String = content.split_whitespace().collect();
            LENIENT
                .decode(plain)
                .map_err(|_| Failure::new("write_memory_file: content is not valid base64"))?
        }
    };
    change.apply(call, Some(bytes)).await
}

pub(super) async fn delete(mut call: Call) -> Answer {
    let change = Change::read(&mut call, "Delete")?;
    change.apply(call, None).await
}

/// What a command wants of which file.
struct Change {
    agent: String,
    path: RelativePath,
    message: String,
}

impl Change {
    fn read(call: &mut Call, verb: &str) -> Result<Self, Failure> {
        let agent = call.fields.string("agent_id")?;
        let path = call.fields.string("path")?;
        call.echo("agent_id", agent.as_str());
        call.echo("path", path.as_str());
        let message = call.fields.optional_string("commit_message")?;
        let command = call.route.name;
        let path = RelativePath::parse(&path)
            .map_err(|problem| Failure::new(format!("{command}: {problem}")))?;
        let message = message
            .as_deref()
            .map(str::trim)
            .filter(|message| !message.is_empty())
            .map_or_else(
                || format!("{verb} memory file {}", path.as_str()),
                String::from,
            );
        Ok(Self {
            agent,
            path,
            message,
        })
    }

    /// Writes `content`, or removes the file without one; commits, pushes, tells.
    async fn apply(self, call: Call, content: Option<Vec<u8>>) -> Answer {
        let services = call.services();
        let command = call.route.name;
        let checkout = touched(services, &self.agent).await?;
        ready(services, &checkout).await?;
        let author = match services.api.agent(&self.agent).await {
            Ok(agent) => agent.get("name").and_then(Value::as_str).map(String::from),
            Err(_) => None,
        };
        let author = Author {
            name: author.unwrap_or_else(|| self.agent.clone()),
            email: format!("{}@letta.com", self.agent),
        };
        let turn = checkout.exclusively().await;
        let before = call
            .blocking({
                let (checkout, path) = (checkout.clone(), self.path.clone());
                move || look(&checkout, &path)
            })
            .await?;
        let before = before.map_err(|text| Failure::new(format!("{command}: {text}")))?;
        let change = memory::Change {
            before,
            after: content,
        };
        let changes = [(self.path.clone(), change)].into();
        let sha = checkout
            .change(&turn, changes, &self.message, &author)
            .await?;
        drop(turn);
        let mut answer = json!({
            "agent_id": self.agent, "path": self.path.as_str(), "committed": sha.is_some(),
        });
        if let Some(sha) = sha {
            answer["commit_sha"] = sha.into();
            checkout.push_within(PUSH).await;
            let news = updated(&[self.path.as_str()]);
            push(call.services(), &call.request.from, &news);
        }
        Ok(answer)
    }
}

/// What a file holds now, if it is there.
fn look(checkout: &Checkout, path: &RelativePath) -> Result<Option<Vec<u8>>, String> {
    match read_bounded(&path.below(checkout.dir())?, MAX_FILE) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
            _ => Err(format!("{}: {error}", path.as_str())),
        },
    }
}
