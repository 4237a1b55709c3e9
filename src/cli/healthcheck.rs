//! `letta healthcheck [--ready]`: asks the health endpoints of the listener on
//! this machine, for containers that have no shell and no curl.
//!
//! Exit code 0 when it is well, 1 when it is not or does not answer within two
//! seconds, 78 when the address cannot be read. One line says why.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::transport::http::HealthAddress;

/// From the first packet to the last.
const DEADLINE: Duration = Duration::from_secs(2);

/// More of an answer is not read.
const LONGEST_ANSWER: u64 = 16 * 1024;

/// Exit code for settings that cannot be used.
const EXIT_CONFIG: u8 = 78;

/// What the check found: the exit code and the line for people.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// 0 well, 1 unwell, 78 configuration.
    pub exit_code: u8,
    /// One line without its end.
    pub line: String,
}

/// Asks `/livez`, or `/readyz` with `ready`, at the address that the listener
/// would use with the same `LETTA_HEALTH_ADDR` and `PORT`.
pub fn run(ready: bool, health_addr: Option<&str>, port: Option<&str>) -> Verdict {
    let address = match HealthAddress::from_settings(health_addr, port) {
        Ok(address) => address,
        Err(error) => return verdict(EXIT_CONFIG, error.to_string()),
    };
    let Some(address) = address.to_connect() else {
        let line = "the health endpoints are switched off (LETTA_HEALTH_ADDR=off)";
        return verdict(EXIT_CONFIG, line.to_owned());
    };
    let path = if ready { "/readyz" } else { "/livez" };
    match ask(address, path, DEADLINE) {
        Ok((200, _)) => verdict(0, String::from("ok")),
        Ok((code, body)) => verdict(1, format!("{path} answered {code}: {}", one_line(&body))),
        Err(error) => verdict(1, format!("http://{address}{path}: {error}")),
    }
}

fn verdict(exit_code: u8, line: String) -> Verdict {
    Verdict { exit_code, line }
}

/// One request over one connection; the status code and the body.
fn ask(address: SocketAddr, path: &str, within: Duration) -> io::Result<(u16, String)> {
    let deadline = Instant::now() + within;
    let mut stream = TcpStream::connect_timeout(&address, within)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut buf = [0; 2048];
    while (answer.len() as u64) < LONGEST_ANSWER {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut buf) {
            Ok(0) => break,
            Ok(len) => answer.extend_from_slice(&buf[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What a socket timeout is called differs between systems.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    let code = answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((code, body.to_owned()))
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

/// The answer comes from whoever holds the port: shown bounded, without control
/// characters.
fn one_line(body: &str) -> String {
    let text = body.trim().chars().take(400);
    text.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// Answers one connection with `answer` and then holds it until the client goes.
    fn server(answer: &'static str) -> (String, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                request.push(byte[0]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            if answer.is_empty() {
                let _ = stream.read(&mut byte);
            }
            String::from_utf8(request).unwrap()
        });
        (address, thread)
    }

    #[test]
    fn a_good_answer_is_exit_code_zero() {
        let (address, asked) = server("HTTP/1.1 200 OK\r\n\r\nok\n");
        let expected = verdict(0, String::from("ok"));
        assert_eq!(run(false, Some(&address), None), expected);
        let request = asked.join().unwrap();
        assert!(
            request.starts_with("GET /livez HTTP/1.1\r\nHost: 127.0.0.1:"),
            "{request}"
        );
    }

    #[test]
    fn a_bad_answer_is_exit_code_one_with_the_reason() {
        let (address, asked) = server("HTTP/1.1 503 No\r\n\r\n{\"state\":\n\"connecting\"}\n");
        let got = run(true, Some(&address), None);
        assert_eq!(got.exit_code, 1);
        assert_eq!(
            got.line,
            "/readyz answered 503: {\"state\": \"connecting\"}"
        );
        assert!(asked.join().unwrap().starts_with("GET /readyz "));
    }

    #[test]
    fn nobody_there_is_exit_code_one() {
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let got = run(false, Some(&free.to_string()), None);
        assert_eq!(got.exit_code, 1);
        assert!(got.line.contains(&free.to_string()), "{}", got.line);
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let (address, asked) = server("");
        let error = ask(
            address.parse().unwrap(),
            "/livez",
            Duration::from_millis(100),
        )
        .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        asked.join().unwrap();
    }

    #[test]
    fn something_else_on_the_port_is_exit_code_one() {
        let (address, asked) = server("SSH-2.0-OpenSSH\r\n");
        let got = run(false, Some(&address), None);
        assert_eq!(got.exit_code, 1);
        assert!(got.line.ends_with("the answer is not HTTP"), "{}", got.line);
        asked.join().unwrap();
    }

    #[test]
    fn settings_that_cannot_be_asked_are_code_78() {
        assert_eq!(run(false, Some("off"), None).exit_code, EXIT_CONFIG);
        assert_eq!(run(false, Some("x y"), None).exit_code, EXIT_CONFIG);
    }
}
