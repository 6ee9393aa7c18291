//! A command that runs behind the proxy: it finds the agent's kubeconfig in `KUBECONFIG`, keeps standard output and the terminal
//! for itself, gets our signals, and its end is ours.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::task::Poll;

use rustix::process::{Pid, Signal, getpgrp, kill_process};
use rustix::termios::tcgetpgrp;
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind};
use tollgate_shared::contract::ENV_PREFIX;
use tollgate_shared::no_proxy::{LOCAL, NO_PROXY, PROXIES, with_local};

/// Exit codes of `sh` for a command that is not there, and one that cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;

/// Signals that a command may get.
const PASSED: [(SignalKind, Signal); 6] = [
    (SignalKind::hangup(), Signal::HUP),
    (SignalKind::interrupt(), Signal::INT),
    (SignalKind::quit(), Signal::QUIT),
    (SignalKind::terminate(), Signal::TERM),
    (SignalKind::user_defined1(), Signal::USR1),
    (SignalKind::user_defined2(), Signal::USR2),
];

/// Handlers of the signals that are passed on.
pub struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn install() -> io::Result<Self> {
        let install = |(kind, signal)| Ok((signal, unix::signal(kind)?));
        PASSED
            .into_iter()
            .map(install)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The next one.
    pub async fn next(&mut self) -> Signal {
        std::future::poll_fn(|cx| {
            let came = self
                .0
                .iter_mut()
                .find_map(|(signal, stream)| stream.poll_recv(cx).is_ready().then_some(*signal));
            came.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// Starts the command.
///
/// # Errors
/// The exit code that says so, with a sentence for people.
pub fn start(
    command: &[OsString],
    environment: &[(String, String)],
    kubeconfig: &Path,
) -> Result<Child, (u8, String)> {
    let (program, arguments) = command.split_first().ok_or((NOT_FOUND, String::new()))?;
    let mut started = Command::new(program);
    started.args(arguments);
    for (name, value) in variables(environment, kubeconfig.as_os_str()) {
        match value {
            Some(value) => started.env(name, value),
            None => started.env_remove(name),
        };
    }
    started.spawn().map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::NotFound => NOT_FOUND,
            _ => NOT_RUN,
        };
        (code, format!("cannot run {}: {error}", program.display()))
    })
}

/// How the command's environment differs from ours: it finds the kubeconfig, asks no proxy for it, and learns nothing of our own
/// settings.
fn variables(own: &[(String, String)], kubeconfig: &OsStr) -> Vec<(String, Option<OsString>)> {
    let value = |wanted: &str| {
        let found = own.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str())
    };
    let settings = own.iter().map(|(name, _)| name);
    let settings = settings.filter(|name| name.starts_with(ENV_PREFIX));
    let mut changes: Vec<_> = settings.map(|name| (name.clone(), None)).collect();
    changes.push(("KUBECONFIG".to_owned(), Some(kubeconfig.to_owned())));
    let proxied = PROXIES.iter().any(|name| {
        let lower = name.to_ascii_lowercase();
        [value(name), value(&lower)]
            .iter()
            .flatten()
            .any(|proxy| !proxy.is_empty())
    });
    let listed = NO_PROXY.iter().any(|name| value(name).is_some());
    for name in NO_PROXY {
        let list = match value(name) {
            Some(list) => with_local(list),
            None => (proxied && !listed).then(|| LOCAL.join(",")),
        };
        if let Some(list) = list {
            changes.push((name.to_owned(), Some(list.into())));
        }
    }
    changes
}

/// Waits for the command's end, and passes signals on until then.
///
/// # Errors
/// When it cannot be waited for.
pub async fn wait(child: &mut Child, signals: &mut Signals) -> io::Result<ExitStatus> {
    loop {
        tokio::select! {
            status = child.wait() => return status,
            signal = signals.next() => pass(child, signal),
        }
    }
}

fn pass(child: &Child, signal: Signal) {
    // The terminal tells every process of its foreground group; twice would be once too often.
    let told = matches!(signal, Signal::INT | Signal::QUIT) && in_foreground();
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(pid) = id.and_then(Pid::from_raw).filter(|_| !told)
        && let Err(error) = kill_process(pid, signal)
    {
        tracing::warn!(%error, ?signal, "the signal could not be passed on");
    }
}

/// Whether we, and with us the command, are what the terminal's keys concern.
fn in_foreground() -> bool {
    let terminal = std::fs::File::open("/dev/tty");
    terminal.is_ok_and(|terminal| tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp()))
}

/// The exit code for a command's end, as a shell gives it.
#[must_use]
pub fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX)
}

/// The exit code of a program that a signal ended.
#[must_use]
pub fn code_of(signal: Signal) -> u8 {
    u8::try_from(128 + signal.as_raw()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_what_a_shell_would_make_of_it() {
        for (raw, expected) in [(0, 0), (3 << 8, 3), (255 << 8, 255), (9, 137), (15, 143)] {
            assert_eq!(code(ExitStatus::from_raw(raw)), expected, "{raw}");
        }
        assert_eq!(code_of(Signal::TERM), 143);
    }

    #[test]
    fn the_command_learns_where_the_proxy_is_and_nothing_of_our_settings() {
        let changed = |own: &[(&str, &str)]| -> Vec<(String, Option<String>)> {
            let own: Vec<_> = own
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            let changes = variables(&own, OsStr::new("/k"));
            let text = |value: OsString| value.into_string().unwrap();
            changes
                .into_iter()
                .map(|(name, value)| (name, value.map(text)))
                .collect()
        };
        let some = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
        let kubeconfig = some("KUBECONFIG", "/k");
        let local = "127.0.0.1,localhost,::1";
        assert_eq!(
            changed(&[("PATH", "/bin"), ("KUBECONFIG", "/mine")]),
            std::slice::from_ref(&kubeconfig)
        );
        assert_eq!(
            changed(&[("TOLLGATE_KUBECONFIG", "/mine")]),
            [("TOLLGATE_KUBECONFIG".to_owned(), None), kubeconfig.clone()]
        );
        assert_eq!(
            changed(&[("https_proxy", "http://p:1")]),
            [
                kubeconfig.clone(),
                some("NO_PROXY", local),
                some("no_proxy", local)
            ]
        );
        assert_eq!(
            changed(&[("HTTPS_PROXY", "http://p:1"), ("no_proxy", "corp")]),
            [
                kubeconfig.clone(),
                some("no_proxy", &format!("corp,{local}"))
            ]
        );
        assert_eq!(
            changed(&[("HTTP_PROXY", ""), ("NO_PROXY", "*")]),
            [kubeconfig]
        );
    }
}
