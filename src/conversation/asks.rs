//! Questions that wait for a human (spec 02 §9.2, §10.2).
//!
//! Invariant: a question has one answer, the first valid one; a connection may
//! answer only what was put to it, by the question itself or by a replay.

use serde_json::{Map, Value};
use tokio::sync::oneshot;

use crate::protocol::ConnectionId;
use crate::protocol::command::{ApprovalAnswer, ApprovalResponse};
use crate::protocol::event::{ControlRequest, PendingControlRequest};

/// A rule that an answer may save (05 §10): what decides about it is opaque here.
pub(crate) type Savable = crate::permissions::Suggestion;

/// A call of the running turn that waits for a decision.
#[derive(Debug)]
pub(crate) struct Ask {
    /// The question as sent.
    pub(crate) request: ControlRequest,
    /// The run it belongs to.
    pub(crate) run_id: Option<String>,
    /// The rule that `save-default` saves.
    pub(crate) savable: Option<Savable>,
    /// Where the decision goes.
    pub(crate) reply: oneshot::Sender<Answered>,
    /// Who may answer.
    pub(crate) answerers: Vec<ConnectionId>,
}

/// The decision that reached the turn.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answered {
    /// What was decided.
    pub(crate) answer: ApprovalAnswer,
    /// Whether a rule was saved: the undecided calls are looked at again.
    pub(crate) rules_changed: bool,
    /// The rule, when it holds for this conversation only.
    pub(crate) saved_for_session: Option<String>,
}

/// A call of an earlier turn, found on the server, that only a human can answer.
#[derive(Debug)]
pub(crate) struct RecoveredAsk {
    /// The question.
    pub(crate) request: ControlRequest,
    /// Who may answer.
    answerers: Vec<ConnectionId>,
    /// The answer, once there is one.
    pub(crate) answer: Option<ApprovalAnswer>,
}

impl RecoveredAsk {
    /// A question that nobody has seen yet.
    pub(crate) fn new(request: ControlRequest) -> Self {
        Self {
            request,
            answerers: Vec::new(),
            answer: None,
        }
    }
}

/// What an answer was for.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// The live question; it is no longer pending.
    Live(Box<Ask>, ApprovalAnswer),
    /// A recovered question.
    Recovered {
        /// Whether that was the last open one.
        last: bool,
    },
    /// Nothing that waits, or not this connection's to answer.
    Nothing,
}

/// All questions of one conversation.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    live: Option<Ask>,
    recovered: Vec<RecoveredAsk>,
}

impl Asks {
    /// Puts the live question; the turn asks one at a time.
    pub(crate) fn put(&mut self, ask: Ask) {
        self.live = Some(ask);
    }

    /// Puts the questions that recovery found.
    pub(crate) fn put_recovered(&mut self, asks: Vec<RecoveredAsk>) {
        self.recovered = asks;
    }

    /// Takes the live question back: its turn is over.
    pub(crate) fn take_live(&mut self) -> Option<Ask> {
        self.live.take()
    }

    /// Takes all recovered questions.
    pub(crate) fn take_recovered(&mut self) -> Vec<RecoveredAsk> {
        std::mem::take(&mut self.recovered)
    }

    /// Whether a recovered question is open.
    pub(crate) fn has_recovered(&self) -> bool {
        self.recovered.iter().any(|ask| ask.answer.is_none())
    }

    /// How many questions wait.
    pub(crate) fn waiting(&self) -> usize {
        usize::from(self.live.is_some())
            + self
                .recovered
                .iter()
                .filter(|ask| ask.answer.is_none())
                .count()
    }

    /// Lets `connection` answer everything that waits; the questions, in order,
    /// as the replay sends them.
    pub(crate) fn register(&mut self, connection: &ConnectionId) -> Vec<ControlRequest> {
        let live = self
            .live
            .iter_mut()
            .map(|ask| (&ask.request, &mut ask.answerers));
        let recovered = self
            .recovered
            .iter_mut()
            .filter(|ask| ask.answer.is_none())
            .map(|ask| (&ask.request, &mut ask.answerers));
        live.chain(recovered)
            .map(|(request, answerers)| {
                if !answerers.contains(connection) {
                    answerers.push(connection.clone());
                }
                request.clone()
            })
            .collect()
    }

    /// A connection is gone: it answers nothing any more.
    pub(crate) fn unregister(&mut self, connection: &ConnectionId) {
        let live = self.live.iter_mut().map(|ask| &mut ask.answerers);
        let recovered = self.recovered.iter_mut().map(|ask| &mut ask.answerers);
        for answerers in live.chain(recovered) {
            answerers.retain(|known| known != connection);
        }
    }

    /// Takes an answer, if it is for something that waits for this connection.
    pub(crate) fn claim(&mut self, from: &ConnectionId, response: ApprovalResponse) -> Claimed {
        let ApprovalResponse { request_id, answer } = response;
        let is_live =
            |ask: &mut Ask| ask.request.request_id == request_id && ask.answerers.contains(from);
        if let Some(ask) = self.live.take_if(is_live) {
            return Claimed::Live(Box::new(ask), answer);
        }
        let open = self.recovered.iter_mut().find(|ask| {
            ask.answer.is_none()
                && ask.request.request_id == request_id
                && ask.answerers.contains(from)
        });
        match open {
            Some(ask) => {
                ask.answer = Some(answer);
                Claimed::Recovered {
                    last: !self.has_recovered(),
                }
            }
            None => Claimed::Nothing,
        }
    }

    /// The questions as the device status shows them.
    pub(crate) fn shown(&self) -> Vec<PendingControlRequest<'_>> {
        let live = self.live.iter().map(|ask| &ask.request);
        let recovered = self
            .recovered
            .iter()
            .filter(|ask| ask.answer.is_none())
            .map(|ask| &ask.request);
        live.chain(recovered)
            .map(|request| PendingControlRequest {
                request_id: &request.request_id,
                request: &request.request,
            })
            .collect()
    }
}

/// The arguments of a call as an object: parsed, or empty.
pub(crate) fn arguments(text: &str) -> Map<String, Value> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::event::{CanUseTool, CanUseToolTag};

    fn request(id: &str) -> ControlRequest {
        ControlRequest {
            request_id: format!("perm-{id}"),
            request: CanUseTool {
                subtype: CanUseToolTag,
                tool_name: "Bash".into(),
                input: Map::new(),
                tool_call_id: id.into(),
                permission_suggestions: vec![],
                blocked_path: (),
                diffs: vec![],
            },
            agent_id: None,
            conversation_id: "conv-1".into(),
        }
    }

    fn deny(id: &str) -> ApprovalResponse {
        ApprovalResponse {
            request_id: format!("perm-{id}"),
            answer: ApprovalAnswer::Deny {
                message: "no".into(),
            },
        }
    }

    fn live(answerers: &[&ConnectionId]) -> Asks {
        let mut asks = Asks::default();
        asks.put(Ask {
            request: request("a"),
            run_id: None,
            savable: None,
            reply: oneshot::channel().0,
            answerers: answerers.iter().map(|c| (*c).clone()).collect(),
        });
        asks
    }

    #[test]
    fn the_first_answer_wins_and_strangers_must_sync_first() {
        let (one, two) = (ConnectionId::new("1"), ConnectionId::new("2"));
        let mut asks = live(&[&one]);
        assert!(matches!(asks.claim(&two, deny("a")), Claimed::Nothing));
        assert!(matches!(asks.claim(&one, deny("other")), Claimed::Nothing));
        assert_eq!(asks.register(&two).len(), 1);
        assert!(matches!(asks.claim(&two, deny("a")), Claimed::Live(..)));
        assert!(matches!(asks.claim(&one, deny("a")), Claimed::Nothing));
    }

    #[test]
    fn a_departed_connection_answers_nothing_but_the_question_stays() {
        let one = ConnectionId::new("1");
        let mut asks = live(&[&one]);
        asks.unregister(&one);
        assert!(matches!(asks.claim(&one, deny("a")), Claimed::Nothing));
        assert_eq!(asks.waiting(), 1);
    }

    #[test]
    fn recovered_questions_are_complete_with_the_last_answer() {
        let one = ConnectionId::new("1");
        let mut asks = Asks::default();
        asks.put_recovered(vec![
            RecoveredAsk::new(request("a")),
            RecoveredAsk::new(request("b")),
        ]);
        asks.register(&one);
        assert_eq!(asks.shown().len(), 2);
        assert!(matches!(
            asks.claim(&one, deny("b")),
            Claimed::Recovered { last: false }
        ));
        assert_eq!(asks.waiting(), 1);
        assert!(
            matches!(asks.claim(&one, deny("b")), Claimed::Nothing),
            "answered already"
        );
        assert!(matches!(
            asks.claim(&one, deny("a")),
            Claimed::Recovered { last: true }
        ));
    }
}
