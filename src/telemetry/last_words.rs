//! How the process ends when it must not go on: after a panic, or with a runtime
//! that is stuck (00 §5).
//!
//! It says why, on stderr and in the session log, and is gone within two seconds,
//! whatever disk and terminal do. Nothing catches a panic: state that a defect
//! may have left half-changed is not worked with. What a killed process keeps
//! (03 §14.5) is all that has to be kept, and the service manager starts the next.

use std::io::Write as _;
use std::panic::PanicHookInfo;
use std::thread;
use std::time::Duration;

use super::redact::Secrets;
use super::session_log::SessionLog;

/// The exit code after a panic: a defect of this program.
pub const EXIT_DEFECT: i32 = 70;

/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Says `words` and ends the process with `code`.
pub fn end_process(log: Option<&SessionLog>, words: String, code: i32) -> ! {
    let (done, said) = std::sync::mpsc::channel();
    let log = log.cloned();
    // Ends with the process; stderr may block for ever.
    let _ = thread::Builder::new().spawn(move || {
        if let Some(log) = log {
            log.line(words.clone());
            log.flush(LAST_WORDS / 2);
        }
        let _ = std::io::stderr().write_all(format!("{words}\n").as_bytes());
        let _ = done.send(());
    });
    let _ = said.recv_timeout(LAST_WORDS);
    std::process::exit(code);
}

/// From now on a panic, wherever it is, ends the process with [`EXIT_DEFECT`].
pub fn end_on_panic(log: Option<SessionLog>, secrets: Secrets) {
    std::panic::set_hook(Box::new(move |panic| {
        let words = words_of(panic, &secrets);
        end_process(log.as_ref(), words, EXIT_DEFECT);
    }));
}

fn words_of(panic: &PanicHookInfo<'_>, secrets: &Secrets) -> String {
    let place = panic.location().map(ToString::to_string);
    let what = panic.payload_as_str().unwrap_or("no message");
    format!(
        "FATAL: a defect in letta at {}: {}; ending with code {EXIT_DEFECT}. Turns that were running go on when it is started again. Please report this line.",
        place.as_deref().unwrap_or("an unknown place"),
        secrets.mask_text(what)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::session_log::SessionLogOptions;
    use std::process::Command;
    use std::time::SystemTime;

    const CHILD: &str = "LETTA_TEST_LAST_WORDS_DIR";

    /// Runs this test once more as a process of its own, which panics.
    #[test]
    fn a_panic_anywhere_is_told_without_secrets_and_ends_the_process() {
        if let Some(dir) = std::env::var_os(CHILD) {
            let secrets = Secrets::default();
            secrets.register("sk-not-for-logs");
            let options = SessionLogOptions::new(dir, SystemTime::UNIX_EPOCH, secrets.clone());
            end_on_panic(Some(SessionLog::open(options)), secrets);
            let thread = thread::spawn(|| panic!("the key sk-not-for-logs is odd"));
            // The other thread ends the process, or this one says that it did not.
            let _ = thread.join();
            std::process::exit(1);
        }
        let dir = tempfile::tempdir().unwrap();
        let name = "telemetry::last_words::tests::a_panic_anywhere_is_told_without_secrets_and_ends_the_process";
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", name])
            .env(CHILD, dir.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(EXIT_DEFECT));
        let mut said = String::from_utf8(output.stderr).unwrap();
        let written = std::fs::read_dir(dir.path()).unwrap();
        for file in written {
            said.push_str(&std::fs::read_to_string(file.unwrap().path()).unwrap());
        }
        let told = "src/telemetry/last_words.rs:";
        assert_eq!(said.matches(told).count(), 2, "{said}");
        assert_eq!(said.matches("the key *** is odd").count(), 2, "{said}");
        assert!(!said.contains("sk-not-for-logs"), "{said}");
    }
}
