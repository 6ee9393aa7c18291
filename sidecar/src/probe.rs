//! `tollgate-sidecar probe`: blocks until the sidecar of this pod is ready. It is the startup probe, and must not fail first
//! and succeed later: a first failed startup probe wedges pods with `restartPolicy: Never` (kubernetes#132826).

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// An answer from this host takes no longer.
const ANSWER: Duration = Duration::from_secs(1);

/// Waits until `/readyz` answers 200, for `limit` at most.
///
/// # Errors
/// What `/readyz` answered last.
pub fn wait(admin_port: u16, limit: Duration) -> Result<(), String> {
    let end = Instant::now() + limit;
    loop {
        let last = match look(admin_port) {
            Ok(answer) if answer.starts_with("HTTP/1.1 200") => return Ok(()),
            Ok(answer) => answer
                .rsplit("\r\n")
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned(),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= end {
            return Err(format!("not ready after {} s: {last}", limit.as_secs()));
        }
        std::thread::sleep(PAUSE);
    }
}

fn look(admin_port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, admin_port).into(), ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(16 * 1024).read_to_string(&mut answer)?;
    Ok(answer)
}
