//! Reads single variables: checks them, and collects every problem instead of
//! stopping at the first, so that one start shows all that has to be repaired.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{
    CronScope, DEFAULT_HEALTH_ADDR, Given, Origin, Secret, ServerFlags, health, variables,
};
use crate::protocol::PermissionMode;

/// `^[A-Za-z0-9][A-Za-z0-9:._-]{0,127}$`
pub(super) fn is_identity(id: &str) -> bool {
    id.len() <= 128
        && id.starts_with(|first: char| first.is_ascii_alphanumeric())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b":._-".contains(&byte))
}

/// The environment and what is wrong with it so far.
pub(super) struct Environment<'a> {
    pub(super) lookup: &'a dyn Fn(&str) -> Option<OsString>,
    pub(super) problems: Vec<String>,
}

impl Environment<'_> {
    /// The raw value; an empty one counts as not set.
    pub(super) fn raw(&self, name: &str) -> Option<OsString> {
        let set = |name: &str| (self.lookup)(name).filter(|value| !value.is_empty());
        set(name).or_else(|| {
            variables::LOWER_CASE_TOO
                .contains(&name)
                .then(|| set(&name.to_ascii_lowercase()))
                .flatten()
        })
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.raw(name).map(PathBuf::from)
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.raw(name)?.into_string() {
            Ok(text) => Some(text),
            Err(_) => {
                self.problems.push(format!("{name} is not valid UTF-8"));
                None
            }
        }
    }

    pub(super) fn secret(&mut self, name: &str) -> Option<Secret> {
        self.text(name).map(Secret::new)
    }

    pub(super) fn checked<T>(
        &mut self,
        name: &str,
        forms: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(name)?;
        let value = read(text.trim());
        if value.is_none() {
            self.problems
                .push(format!("{name}={text} is not valid; accepted: {forms}"));
        }
        value
    }

    pub(super) fn switch(&mut self, name: &str, default: bool) -> bool {
        self.checked(name, "1, true or on; 0, false or off", |text| {
            match text.to_ascii_lowercase().as_str() {
                "1" | "true" | "on" => Some(true),
                "0" | "false" | "off" => Some(false),
                _ => None,
            }
        })
        .unwrap_or(default)
    }

    /// Other programs use `DEBUG` for patterns: those are not meant for us.
    pub(super) fn is_one_or_true(&self, name: &str) -> bool {
        self.raw(name)
            .is_some_and(|value| value == "1" || value == "true")
    }

    /// A positive number of milliseconds. The published program ignores any
    /// other value of these variables, so this one does too.
    pub(super) fn millis(&mut self, name: &str, default: u64) -> Duration {
        self.raw(name)
            .and_then(|value| value.to_str()?.trim().parse::<f64>().ok())
            .and_then(|millis| Duration::try_from_secs_f64(millis / 1000.0).ok())
            .filter(|limit| !limit.is_zero())
            .unwrap_or(Duration::from_millis(default))
    }

    /// A server: http or https, without credentials, which would end up in logs.
    pub(super) fn url(&mut self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        let trimmed = text.trim().trim_end_matches('/');
        let usable = reqwest::Url::parse(trimmed).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.username().is_empty()
                && url.password().is_none()
        });
        if !usable {
            // Not repeated: it may carry a password.
            self.problems.push(format!(
                "{name} is not valid; accepted: an http or https URL without user and password"
            ));
            return None;
        }
        Some(trimmed.to_owned())
    }

    pub(super) fn name(&mut self, flags: &ServerFlags) -> Option<Given<String>> {
        let long = self.text("LETTA_ENV_NAME");
        let short = self.text("ENV_NAME");
        let given = |value, origin| Given { value, origin };
        flags
            .name
            .clone()
            .map(|value| given(value, Origin::Flag("--env-name")))
            .or_else(|| long.map(|value| given(value, Origin::Environment("LETTA_ENV_NAME"))))
            .or_else(|| short.map(|value| given(value, Origin::Environment("ENV_NAME"))))
    }

    pub(super) fn permission_mode(&mut self, flags: &ServerFlags) -> Option<Given<PermissionMode>> {
        const NAME: &str = "LETTA_PERMISSION_MODE";
        let forms = PermissionMode::ALL.map(PermissionMode::as_str).join(", ");
        let variable = self.checked(NAME, &forms, PermissionMode::parse);
        flags
            .permission_mode
            .map(|value| Given {
                value,
                origin: Origin::Flag("--permission-mode"),
            })
            .or_else(|| {
                variable.map(|value| Given {
                    value,
                    origin: Origin::Environment(NAME),
                })
            })
    }

    pub(super) fn device_id(&mut self, name: &str) -> Option<String> {
        self.checked(
            name,
            "up to 128 letters, digits and :._- that begin with a letter or digit",
            |id| is_identity(id).then(|| id.to_owned()),
        )
    }

    pub(super) fn cron(&mut self) -> CronScope {
        let scope = match self.text("LETTA_CRON_SCHEDULER_SCOPE").as_deref() {
            Some("cloud") => CronScope::Cloud,
            Some("local") => CronScope::Local,
            _ => CronScope::All,
        };
        if self.switch("LETTA_DISABLE_CRON_SCHEDULER", false) {
            CronScope::Off
        } else {
            scope
        }
    }

    pub(super) fn health_addr(&mut self) -> Option<SocketAddr> {
        let port = self.checked("PORT", "a port number from 0 to 65535", |text| {
            text.parse().ok()
        });
        self.checked(
            "LETTA_HEALTH_ADDR",
            health::HEALTH_FORMS,
            health::parse_health_addr,
        )
        .unwrap_or_else(|| Some(port.map_or(DEFAULT_HEALTH_ADDR, health::platform_addr)))
    }
}
