//! `letta`: one static binary that turns any machine into an always-on remote
//! environment for Letta Code agents.
//!
//! It opens one outbound WebSocket to Letta Cloud, runs the agent's tools on
//! this machine, asks for approval where the rules say so, and streams
//! everything back. The binary is a thin `main.rs` over this library, so that
//! tests, benches, examples and fuzz targets reach every part.
//!
//! # Layout
//!
//! Modules stand on floors; each uses only modules on floors below its own.
//! `docs/architecture.md` draws the way of a frame and of a tool call.
//!
//! - 0 [`protocol`]: wire types of the WebSocket protocol, nothing but data.
//! - 0 [`config`]: every flag and environment variable, read once.
//! - 0 [`frontmatter`]: the header of a Markdown file.
//! - 0 `line_diff`: which lines two texts have in common.
//! - 1 [`events`]: the two handles that let lower floors speak upward.
//! - 1 [`state`]: everything on disk under `~/.letta` and `.letta`.
//! - 1 [`telemetry`]: logs, the per-session transport log, metrics.
//! - 1 [`api`]: the Letta HTTP API, TLS and proxies, OAuth.
//! - 1 `websocket`: a WebSocket and how a client opens one.
//! - 2 [`credentials`]: which bearer token, from where; refresh and login.
//! - 2 [`process`]: children: shells, groups, output capture, background work.
//! - 2 [`permissions`]: may this tool call run? Pure decisions.
//! - 2 [`memory`]: an agent's memory as a git repository.
//! - 2 [`cron`]: scheduled prompts: expressions, store, lease, scheduler.
//! - 2 [`skills`]: which skills exist for a conversation, and what one says.
//! - 2 [`subagents`]: which kinds of subagents there are, and how one is asked for.
//! - 3 [`tools`]: the tools of this machine and how a batch of calls runs.
//! - 3 [`hooks`]: the user's own commands around tool calls.
//! - 4 [`conversation`]: the actor of one conversation: queue, turn, approvals.
//! - 5 [`device`]: the commands that are not about a turn: files, terminals, models.
//! - 6 [`listener`]: the coordinator: subscriptions, dispatch, the outbox.
//! - 7 [`transport`]: the relay connection and the health endpoints.
//! - 8 [`cli`]: one file per subcommand.

pub mod api;
pub mod cli;
pub mod config;
pub mod conversation;
pub mod credentials;
pub mod cron;
pub mod device;
pub mod events;
pub mod frontmatter;
pub mod hooks;
mod line_diff;
pub mod listener;
pub mod memory;
pub mod permissions;
pub mod process;
pub mod protocol;
pub mod skills;
pub mod state;
pub mod subagents;
pub mod telemetry;
pub mod tools;
pub mod transport;
mod websocket;
