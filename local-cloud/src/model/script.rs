//! The script language: the last user message says what the model does.
//!
//! One directive a line; other lines are ignored. A request runs one step after
//! the other until a step has called client tools; then it stops for approval,
//! and the continuation goes on with the next step.
//!
//! | line | meaning |
//! |---|---|
//! | `CALL Tool {json}` | the step calls a client tool; all `CALL`s of a step are one parallel batch |
//! | `CALLID id Tool {json}` | the same with a chosen tool call id |
//! | `SERVERCALL Tool {json} => result` | the server runs a tool itself |
//! | `THEN` | next step; also implied by `SAY`, `REASON`, `SLEEP` behind a `CALL` |
//! | `SAY text` | answer text; several lines of one step are joined |
//! | `REASON text` | reasoning |
//! | `SLEEP seconds` | pause (the run is active meanwhile) |
//! | `SPLIT n` | cut what follows into n deltas each |
//! | `PACE seconds` | time between deltas |
//! | `SHAPE object\|array\|single` | how calls appear in chunks |
//! | `PING` | a ping event |
//! | `CHUNK {json}` | this chunk as it is |
//! | `ERROR text` | an `error_message` chunk as data |
//! | `FAIL stop_reason text` | the run fails with `event: error` |
//! | `STOP reason` | the run ends here with this stop reason |

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Outcome, Shape, StepWriter};
use crate::letta::runs::Run;
use crate::letta::store::Call;
use crate::server::Cloud;

/// What a message without a script is answered with.
pub const EXPLANATION: &str = "Hello! I am a scripted model, so nothing here costs a token. \
Tell me what to do, one line each:\n\n\
    CALL Bash {\"command\":\"uname -a\",\"description\":\"Which system is this\"}\n\
    SAY That is your machine.\n\n\
`CALL Tool {json}` calls a tool on the machine, several in a row at once. `THEN` begins the next step. \
`SAY text` answers, `REASON text` thinks aloud, `SLEEP 2` waits, `PACE 0.05` slows the stream down. \
Set OPENAI_BASE_URL or OPENAI_API_KEY before the start and a real model answers in my place.";

#[derive(Clone, Debug, PartialEq)]
enum Op {
    Call {
        id: Option<String>,
        name: String,
        arguments: String,
    },
    ServerCall {
        name: String,
        arguments: String,
        result: String,
    },
    Say(String),
    Reason(String),
    Sleep(Duration),
    Split(usize),
    Pace(Duration),
    Shape(Shape),
    Ping,
    Chunk(Value),
    Error(String),
    Fail(String, String),
    Stop(String),
}

/// What is left to do in a conversation, step by step.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan(VecDeque<Vec<Op>>);

impl Plan {
    /// Reads a script; `None` when no line of `text` is a directive.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut steps = VecDeque::new();
        let mut step: Vec<Op> = Vec::new();
        let mut any = false;
        for line in text.lines() {
            if line.trim() == "THEN" {
                any = true;
                steps.push_back(std::mem::take(&mut step));
                continue;
            }
            let Some(op) = parse_line(line) else { continue };
            any = true;
            let called = step.iter().any(|op| matches!(op, Op::Call { .. }));
            let begins = matches!(op, Op::Say(_) | Op::Reason(_) | Op::Sleep(_) | Op::Fail(..));
            if called && begins {
                steps.push_back(std::mem::take(&mut step));
            }
            match (step.last_mut(), op) {
                (Some(Op::Say(said)), Op::Say(more)) => {
                    said.push('\n');
                    said.push_str(&more);
                }
                (_, op) => step.push(op),
            }
        }
        if !step.is_empty() {
            steps.push_back(step);
        }
        any.then_some(Self(steps))
    }

    /// A plan that only says `text`, slowly enough to watch when it is long.
    pub(crate) fn saying(text: &str) -> Self {
        let mut step = Vec::new();
        if text.len() > 200 {
            step.push(Op::Split(text.len() / 12));
            step.push(Op::Pace(Duration::from_millis(8)));
        }
        step.push(Op::Say(text.to_owned()));
        Self(VecDeque::from([step]))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What step `number` says to somebody who asks for one message at a time.
    /// Steps without a word are skipped, and their pauses add up.
    pub(crate) fn said(&self, number: usize) -> Said {
        let mut said = Said::default();
        for step in self.0.iter().skip(number) {
            for op in step {
                match op {
                    Op::Call {
                        id,
                        name,
                        arguments,
                    } => said.calls.push(Call {
                        id: id
                            .clone()
                            .unwrap_or_else(|| format!("call_{}", crate::short_id())),
                        name: name.clone(),
                        arguments: arguments.clone(),
                    }),
                    Op::Say(text) => said.text.push_str(text),
                    Op::Sleep(time) => said.wait += *time,
                    Op::Split(pieces) => said.split = *pieces,
                    Op::Pace(pace) => said.pace = *pace,
                    _ => {}
                }
            }
            if !said.calls.is_empty() || !said.text.is_empty() {
                return said;
            }
        }
        said.text.push_str("done");
        said
    }
}

/// One message of a model: what it says, how slowly.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Said {
    pub(crate) calls: Vec<Call>,
    pub(crate) text: String,
    /// Before the first word.
    pub(crate) wait: Duration,
    /// Between deltas.
    pub(crate) pace: Duration,
    /// Number of deltas.
    pub(crate) split: usize,
}

impl Default for Said {
    fn default() -> Self {
        Self {
            calls: Vec::new(),
            text: String::new(),
            wait: Duration::ZERO,
            pace: Duration::ZERO,
            split: 2,
        }
    }
}

impl Said {
    pub(crate) fn text(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            ..Self::default()
        }
    }
}

fn parse_line(line: &str) -> Option<Op> {
    let (word, rest) = line.split_once(' ').unwrap_or((line.trim_end(), ""));
    let seconds = || Duration::try_from_secs_f64(rest.trim().parse().ok()?).ok();
    Some(match word {
        "CALL" => {
            let (name, arguments) = rest.split_once(' ').unwrap_or((rest, "{}"));
            Op::Call {
                id: None,
                name: name.to_owned(),
                arguments: arguments.to_owned(),
            }
        }
        "CALLID" => {
            let (id, rest) = rest.split_once(' ')?;
            let (name, arguments) = rest.split_once(' ').unwrap_or((rest, "{}"));
            Op::Call {
                id: Some(id.to_owned()),
                name: name.to_owned(),
                arguments: arguments.to_owned(),
            }
        }
        "SERVERCALL" => {
            let (call, result) = rest.split_once(" => ").unwrap_or((rest, "ok"));
            let (name, arguments) = call.split_once(' ').unwrap_or((call, "{}"));
            let text = |part: &str| part.trim().to_owned();
            Op::ServerCall {
                name: text(name),
                arguments: text(arguments),
                result: text(result),
            }
        }
        "SAY" => Op::Say(rest.to_owned()),
        "REASON" => Op::Reason(rest.to_owned()),
        "SLEEP" => Op::Sleep(seconds()?),
        "PACE" => Op::Pace(seconds()?),
        "SPLIT" => Op::Split(rest.trim().parse().ok()?),
        "SHAPE" => Op::Shape(match rest.trim() {
            "object" => Shape::Object,
            "array" => Shape::Array,
            "single" => Shape::Single,
            _ => return None,
        }),
        "PING" if rest.is_empty() => Op::Ping,
        "CHUNK" => Op::Chunk(serde_json::from_str(rest).ok()?),
        "ERROR" => Op::Error(rest.to_owned()),
        "FAIL" => {
            let (reason, text) = rest
                .split_once(' ')
                .unwrap_or((rest, "The script said so."));
            Op::Fail(reason.to_owned(), text.to_owned())
        }
        "STOP" => Op::Stop(rest.trim().to_owned()),
        _ => return None,
    })
}

/// Runs steps of `plan` until one called client tools, or all are done.
pub(crate) async fn perform(
    cloud: &Arc<Cloud>,
    run: &Arc<Run>,
    plan: &mut Plan,
    stream_tokens: bool,
) -> Outcome {
    let mut spoke = false;
    loop {
        let step = plan.0.pop_front();
        let last = step.is_none();
        let mut writer = StepWriter::new(cloud, run, stream_tokens);
        if last && !spoke {
            writer.say("done", 1).await;
        }
        let stop = steps_of(run, &mut writer, step.unwrap_or_default()).await;
        spoke = !writer.is_empty();
        let waits = writer.commit();
        match stop {
            Some(outcome) => return outcome,
            None if run.is_cancelled() => return Outcome::Stop("cancelled".to_owned()),
            None if waits => return Outcome::Stop("requires_approval".to_owned()),
            None if last || (plan.is_empty() && spoke) => {
                return Outcome::Stop("end_turn".to_owned());
            }
            None => {}
        }
    }
}

/// Performs one step; the outcome when it ends the run.
async fn steps_of(run: &Arc<Run>, writer: &mut StepWriter<'_>, ops: Vec<Op>) -> Option<Outcome> {
    let mut split = None;
    for op in ops {
        let cancelled = match op {
            Op::Call {
                id,
                name,
                arguments,
            } => {
                let id = id.unwrap_or_else(|| format!("call_{}", crate::short_id()));
                writer
                    .call(
                        Call {
                            id,
                            name,
                            arguments,
                        },
                        split.unwrap_or(1),
                    )
                    .await
            }
            Op::ServerCall {
                name,
                arguments,
                result,
            } => {
                let id = format!("call_{}", crate::short_id());
                writer.server_call(
                    Call {
                        id,
                        name,
                        arguments,
                    },
                    result,
                );
                run.is_cancelled()
            }
            Op::Say(text) => writer.say(&text, split.unwrap_or(2)).await,
            Op::Reason(text) => writer.reason(&text, split.unwrap_or(1)).await,
            Op::Sleep(time) => run.pause(time).await,
            Op::Split(pieces) => {
                split = Some(pieces);
                false
            }
            Op::Pace(pace) => {
                writer.pace = pace;
                false
            }
            Op::Shape(shape) => {
                writer.shape = shape;
                false
            }
            Op::Ping => {
                run.ping();
                false
            }
            Op::Chunk(chunk) => {
                run.chunk(chunk);
                false
            }
            Op::Error(text) => {
                run.chunk(
                    json!({"message_type": "error_message", "error_type": "internal_error",
                    "message": text}),
                );
                false
            }
            Op::Fail(reason, text) => {
                let error = json!({"message_type": "error_message", "error_type": "llm_error",
                    "message": "An error occurred with the LLM request.", "detail": text});
                return Some(Outcome::Failed(Some(reason), error));
            }
            Op::Stop(reason) => return Some(Outcome::Bare(reason)),
        };
        if cancelled {
            return Some(Outcome::Stop("cancelled".to_owned()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_a_step_are_one_batch_and_saying_begins_the_next_step() {
        let plan = Plan::parse("hi\nCALL A {\"x\":1}\nCALL B {}\nSAY one\nSAY two").unwrap();
        assert_eq!(plan.0.len(), 2);
        assert_eq!(plan.0[0].len(), 2);
        assert_eq!(plan.0[1], [Op::Say("one\ntwo".into())]);
    }

    #[test]
    fn text_without_directives_is_no_script() {
        assert_eq!(Plan::parse("Please CALL me\nSAYING nothing"), None);
    }

    #[test]
    fn a_server_call_has_its_result_behind_the_arrow() {
        let plan = Plan::parse("SERVERCALL web_search {\"q\":\"a\"} => found").unwrap();
        assert_eq!(
            plan.0[0],
            [Op::ServerCall {
                name: "web_search".into(),
                arguments: "{\"q\":\"a\"}".into(),
                result: "found".into()
            }]
        );
    }
}
