//! How people are spoken to.
//!
//! Invariant: a reader that has gone, such as `head` behind a pipe, ends nothing.
//! The standard macros panic then; a server goes on without being heard. What
//! cannot be written for another reason, such as a full disk, is complained of.

use std::io;

/// Writes a line for the person at the terminal.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::say::spoken(&format!($($text)*), "\n") };
}

/// The same without the end of the line.
macro_rules! say_part {
    ($($text:tt)*) => { $crate::cli::say::spoken(&format!($($text)*), "") };
}

/// Writes a line about what went wrong.
macro_rules! complain {
    ($($text:tt)*) => { $crate::cli::say::complained(&format!($($text)*), "\n") };
}

/// The same without the end of the line.
macro_rules! complain_part {
    ($($text:tt)*) => { $crate::cli::say::complained(&format!($($text)*), "") };
}

/// To standard output.
pub(super) fn spoken(text: &str, end: &str) {
    match write(&mut io::stdout().lock(), text, end) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complained(
                &format!("Error: the output cannot be written: {error}"),
                "\n",
            );
        }
        _ => {}
    }
}

/// To standard error; there is nobody left to tell when that fails.
pub(super) fn complained(text: &str, end: &str) {
    let _ = write(&mut io::stderr().lock(), text, end);
}

fn write(out: &mut impl io::Write, text: &str, end: &str) -> io::Result<()> {
    out.write_all(text.as_bytes())?;
    out.write_all(end.as_bytes())
}
