//! The program as it is shipped, against a cloud of our own: what goes over the
//! wire, what is left after a restart and with which code it ends. Each test is
//! named after the row of the acceptance lists it checks (`s03_22_row01` is
//! part 03, section 22, row 1). None sleeps; each waits for a frame, a request
//! or an exit.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failed step ends the test"
)]

#[path = "wire/aborts.rs"]
mod aborts;
#[path = "wire/approvals.rs"]
mod approvals;
#[path = "wire/credentials.rs"]
mod credentials;
#[path = "wire/decisions.rs"]
mod decisions;
#[path = "wire/device.rs"]
mod device;
#[path = "wire/direct_clients.rs"]
mod direct_clients;
#[path = "wire/direct_door.rs"]
mod direct_door;
#[path = "wire/direct_harness.rs"]
mod direct_harness;
#[path = "wire/direct_openai.rs"]
mod direct_openai;
#[path = "wire/direct_tools.rs"]
mod direct_tools;
#[path = "wire/failures.rs"]
mod failures;
#[path = "wire/faults.rs"]
mod faults;
#[path = "wire/harness.rs"]
mod harness;
#[path = "wire/hooks.rs"]
mod hooks;
#[path = "wire/images.rs"]
mod images;
#[path = "wire/kills.rs"]
mod kills;
#[path = "wire/leaks.rs"]
mod leaks;
#[path = "wire/lifecycle.rs"]
mod lifecycle;
#[path = "wire/modes.rs"]
mod modes;
#[path = "wire/queue.rs"]
mod queue;
#[path = "wire/schedules.rs"]
mod schedules;
#[path = "wire/service.rs"]
mod service;
#[path = "wire/shapes.rs"]
mod shapes;
#[path = "wire/skills.rs"]
mod skills;
#[path = "wire/slash.rs"]
mod slash;
#[path = "wire/start.rs"]
mod start;
#[path = "wire/state.rs"]
mod state;
#[path = "wire/subagents.rs"]
mod subagents;
#[path = "wire/tools.rs"]
mod tools;
#[path = "wire/turns.rs"]
mod turns;
#[path = "wire/workspaces.rs"]
mod workspaces;
