//! How fast `tollgate-sidecar verify` reads long records, and in how much memory: makes the records of some pods and the
//! cluster's log of them, runs the program over them, and prints lines a second and the most memory that it had.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;

mod log;
mod pod;

use pod::Pod;

/// Measures `tollgate-sidecar verify` on this machine.
#[derive(Parser)]
struct Arguments {
    /// The program, built for release.
    #[arg(long, value_name = "PROGRAM")]
    sidecar: PathBuf,
    /// Calls in the records; each has two lines, and two events in the cluster's log.
    #[arg(long, default_value_t = 500_000)]
    calls: u64,
    /// Pods that make them, in turn.
    #[arg(long, default_value_t = 10)]
    pods: u64,
    /// Runs of each kind; the fastest counts.
    #[arg(long, default_value_t = 3)]
    runs: u32,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let (record, audit) = (
        folder.path().join("record"),
        folder.path().join("audit.log"),
    );
    write(&arguments, &record, &audit)?;
    let lines = 2 * arguments.calls;
    let mut out = std::io::stdout().lock();
    for (what, read, cluster) in [
        ("verify-records", lines, None),
        ("verify-join", 2 * lines, Some(&audit)),
    ] {
        let mut best: Option<Run> = None;
        for _ in 0..arguments.runs {
            let run = verify(&arguments.sidecar, &record, cluster.map(PathBuf::as_path))?;
            if best.as_ref().is_none_or(|best| run.took < best.took) {
                best = Some(run);
            }
        }
        let best = best.context("no runs")?;
        let rate = |time: Duration| read as f64 / time.as_secs_f64();
        writeln!(
            out,
            "{what} lines={read} seconds={:.2} lines-per-second={:.0} lines-per-processor-second={:.0} max-memory-kib={} {}",
            best.took.as_secs_f64(),
            rate(best.took),
            rate(best.busy),
            best.memory,
            best.line
        )?;
    }
    Ok(())
}

/// Writes both files, calls of all pods mixed.
fn write(arguments: &Arguments, record: &Path, audit: &Path) -> anyhow::Result<()> {
    let mut record = BufWriter::with_capacity(1 << 20, File::create(record)?);
    let mut audit = BufWriter::with_capacity(1 << 20, File::create(audit)?);
    let mut pods: Vec<Pod> = (0..arguments.pods).map(Pod::new).collect();
    let count = pods.len().max(1);
    for number in 0..arguments.calls {
        let at = usize::try_from(number)? % count;
        let pod = pods.get_mut(at).context("no pods")?;
        let call = pod.call(number, &mut record)?;
        log::write(&call, &mut audit)?;
    }
    record.flush()?;
    audit.flush()?;
    Ok(())
}

/// One run of the program.
struct Run {
    took: Duration,
    /// Of a processor; on a machine that does nothing else it is as long.
    busy: Duration,
    /// KiB.
    memory: u64,
    line: String,
}

fn verify(program: &Path, record: &Path, audit: Option<&Path>) -> anyhow::Result<Run> {
    let cluster = audit.map(|path| [Path::new("--cluster-audit"), path]);
    let start = Instant::now();
    let mut child = Command::new(program)
        .arg("verify")
        .arg(record)
        .args(cluster.into_iter().flatten())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let (mut memory, mut busy) = (0, Duration::ZERO);
    while child.try_wait()?.is_none() {
        memory = peak(child.id()).unwrap_or(memory);
        busy = processor(child.id()).unwrap_or(busy);
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = start.elapsed();
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "verify found faults");
    let line = String::from_utf8(output.stdout)?.trim_end().to_owned();
    Ok(Run {
        took,
        busy,
        memory,
        line,
    })
}

/// Processor time of a process so far, in hundredths of a second as Linux counts it (`USER_HZ`).
fn processor(pid: u32) -> Option<Duration> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let (_, fields) = status.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11);
    let mut next = || times.next()?.parse::<u64>().ok();
    Some(Duration::from_millis(10 * (next()? + next()?)))
}

/// The most memory that a process had so far, in KiB.
fn peak(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
