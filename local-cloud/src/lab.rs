//! `POST /lab/…`: the same switches as the Rust API, for people and scripts.
//!
//! | call | body |
//! |---|---|
//! | `/lab/fail` | `{"on":"message","fault":"cut_after_bytes","bytes":17,"times":1}` |
//! | `/lab/clear` | – |
//! | `/lab/send` | a frame for every device |
//! | `/lab/close` | `{"code":1000,"reason":""}` |
//! | `/lab/drop`, `/lab/freeze` | – |
//! | `/lab/set` | `{"pong":false,"mode":"single"}` |
//! | `GET /lab/frames?since=n` | – |
//! | `GET /lab/requests?since=n` | – |

use std::sync::Arc;

use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::device::Device;
use crate::fault::{Fault, Target};
use crate::log::Cursor;
use crate::options::Mode;
use crate::record::Recorded;
use crate::reply;
use crate::server::Cloud;

/// Answers one call.
pub(crate) fn dispatch(cloud: &Arc<Cloud>, request: &Recorded) -> Response {
    let body = request.json();
    let since = request
        .query
        .strip_prefix("since=")
        .and_then(|number| number.parse().ok())
        .map_or(Cursor::START, Cursor);
    match (request.method.as_str(), request.path.as_str()) {
        ("POST", "/lab/fail") => return fail(cloud, &body),
        ("POST", "/lab/clear") => cloud.faults.clear(),
        ("POST", "/lab/set") => {
            if let Some(on) = body["pong"].as_bool() {
                cloud.set_pong(on);
            }
            match body["mode"].as_str() {
                Some("single") => cloud.set_mode(Mode::Single),
                Some("split") => cloud.set_mode(Mode::Split),
                Some("paired") => cloud.set_mode(Mode::Paired),
                _ => {}
            }
        }
        ("POST", "/lab/send") => {
            return each(cloud, |device| device.send(body.clone()));
        }
        ("POST", "/lab/close") => {
            let code = body["code"]
                .as_u64()
                .and_then(|code| u16::try_from(code).ok());
            let reason = body["reason"].as_str().unwrap_or_default();
            return each(cloud, |device| device.close(code.unwrap_or(1000), reason));
        }
        ("POST", "/lab/drop") => return each(cloud, Device::drop_tcp),
        ("POST", "/lab/freeze") => return each(cloud, Device::freeze),
        ("GET", "/lab/frames") => {
            let (frames, next) = cloud.devices.frames.page(since);
            let frames: Vec<Value> = frames
                .iter()
                .map(|f| json!({"link": f.link, "channel": format!("{:?}", f.channel), "frame": f.value}))
                .collect();
            return reply::ok(&json!({"frames": frames, "next": next.0}));
        }
        ("GET", "/lab/requests") => {
            let (requests, next) = cloud.requests.page(since);
            let requests: Vec<Value> = requests
                .iter()
                .map(|r| json!({"request": r.line(), "body": r.json()}))
                .collect();
            return reply::ok(&json!({"requests": requests, "next": next.0}));
        }
        _ => return reply::detail(404, "Not Found"),
    }
    reply::ok(&json!({}))
}

fn fail(cloud: &Cloud, body: &Value) -> Response {
    match (Target::deserialize(body), Fault::deserialize(body)) {
        (Ok(target), Ok(fault)) => {
            let times = body["times"].as_u64().unwrap_or(1).min(1000);
            for _ in 0..times {
                cloud.faults.queue(target.clone(), fault.clone());
            }
            reply::ok(&json!({"queued": times}))
        }
        (Err(error), _) => reply::detail(400, &format!("on: {error}")),
        (_, Err(error)) => reply::detail(400, &format!("fault: {error}")),
    }
}

/// Does something to every device with a link.
fn each(cloud: &Arc<Cloud>, act: impl Fn(&Device)) -> Response {
    let links: Vec<_> = cloud
        .devices
        .read(|all| all.iter().filter_map(|c| c.link.clone()).collect());
    let count = links.len();
    for link in links {
        act(&Device::new(cloud.clone(), link));
    }
    reply::ok(&json!({"devices": count}))
}
