//! SIGKILL at any point: what the successor leaves must verify as if nothing had happened.

use std::fs::{self, OpenOptions};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};

use super::*;

/// Takes this many bytes, then the process dies.
struct Deadly {
    out: Arc<Mutex<Vec<u8>>>,
    left: usize,
}

impl Sink for Deadly {
    fn batch(&self) -> usize {
        1
    }
    fn begin(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn ready(&mut self, _limit: Duration) -> io::Result<bool> {
        Ok(true)
    }
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.left);
        if taken == 0 {
            resume_unwind(Box::new("killed"));
        }
        self.left -= taken;
        self.out
            .lock()
            .unwrap()
            .extend_from_slice(bytes.get(..taken).unwrap());
        Ok(taken)
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn undo(&mut self, _written: usize) -> bool {
        unreachable!("a dead process undoes nothing")
    }
}

/// One after the other: two calls open, one closes, one streams; until the process dies.
fn first_life(folder: &Path, left: usize) -> Arc<Mutex<Vec<u8>>> {
    let out = Arc::new(Mutex::new(Vec::new()));
    let sink = Box::new(Deadly {
        out: Arc::clone(&out),
        left,
    });
    let queue = Arc::new(Queue::default());
    let journal = Some(Journal::load(folder).unwrap());
    let mut writer = Writer::new(Arc::clone(&queue), sink, journal, identity(), LONG);
    let opener = Opener::new(queue);
    let life = || {
        let closed = open(&opener, &mut writer, "/closed");
        let _open = open(&opener, &mut writer, "/open");
        closed.close(done());
        writer.turn();
        let mut stream = open(&opener, &mut writer, "/stream");
        stream.response_started(200);
        writer.turn();
        resume_unwind(Box::new("killed"));
    };
    catch_unwind(AssertUnwindSafe(life)).unwrap_err();
    out
}

fn open(opener: &Opener, writer: &mut Writer, uri: &str) -> OpenCall {
    let (ack, mut opened) = oneshot::channel();
    let facts = Arc::new(Facts::new(opening(uri), false));
    opener.open(facts, Ticket::default(), ack).unwrap();
    writer.turn();
    opened.try_recv().unwrap().picked_up()
}

/// Continues on the same output; returns it whole.
async fn second_life(folder: &Path, out: Arc<Mutex<Vec<u8>>>) -> String {
    let sink = Box::new(Deadly {
        out: Arc::clone(&out),
        left: usize::MAX,
    });
    let journal = Some(Journal::load(folder).unwrap());
    let recorder = Recorder::with(sink, journal, identity(), LONG, false).unwrap();
    recorder
        .open(opening("/second"))
        .await
        .unwrap()
        .close(done());
    assert!(recorder.shutdown(LONG).await);
    let out = out.lock().unwrap().clone();
    String::from_utf8(out).unwrap()
}

/// Verifies the output; returns the number of its lines, repetitions aside.
fn verified(output: &str, what: &str) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record");
    fs::write(&path, output).unwrap();
    let summary = crate::verify::run(&crate::verify::Args {
        files: vec![path],
        ..Default::default()
    })
    .unwrap();
    assert!(summary.is_good(), "{what}: {}\n{output}", summary.explain());
    // A few bytes of a line could be anybody's.
    assert!(summary.open == 0 && summary.foreign <= 1, "{what}");
    summary.lines
}

#[tokio::test]
async fn a_kill_at_any_byte_of_the_output_leaves_a_whole_chain() {
    let folder = tempfile::tempdir().unwrap();
    let all = first_life(folder.path(), usize::MAX).lock().unwrap().len();
    assert!(all > 4000);
    for left in (0..all).step_by(67).chain([all]) {
        let folder = tempfile::tempdir().unwrap();
        let out = first_life(folder.path(), left);
        assert_eq!(out.lock().unwrap().len(), left);
        let output = second_life(folder.path(), out).await;
        let lines = verified(&output, &format!("killed after {left} bytes"));
        assert_eq!(
            lines % 2,
            u64::from(output.contains("ResponseStarted")),
            "{left}"
        );
    }
}

#[tokio::test]
async fn a_kill_while_the_state_is_written_leaves_a_whole_chain() {
    let lines = {
        let folder = tempfile::tempdir().unwrap();
        let out = first_life(folder.path(), usize::MAX);
        let out = out.lock().unwrap().clone();
        let ends = out.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        ends.map(|(at, _)| at + 1).collect::<Vec<usize>>()
    };
    for end in lines.into_iter().rev().skip(1) {
        for cut in [0, 1, 2, 300, 700] {
            let folder = tempfile::tempdir().unwrap();
            // The next line is in the state and nowhere else; then not even there in whole.
            let out = first_life(folder.path(), end);
            let path = folder.path().join("record.journal");
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(file.metadata().unwrap().len() - cut).unwrap();
            let output = second_life(folder.path(), out).await;
            verified(
                &output,
                &format!("line after {end} bytes, {cut} bytes short"),
            );
        }
    }
}

#[test]
fn damaged_state_fails_the_start_and_names_the_line() {
    let folder = tempfile::tempdir().unwrap();
    first_life(folder.path(), usize::MAX);
    let path = folder.path().join("record.journal");
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, whole.replacen("/closed", "/opened", 1)).unwrap();
    let error = Journal::load(folder.path()).err().unwrap().to_string();
    assert!(
        error.contains("record.journal") && error.contains("its line 2 was changed"),
        "{error}"
    );
    let error = Journal::load(&folder.path().join("none")).err().unwrap();
    assert!(error.to_string().contains("--state-dir"), "{error}");
}

#[test]
fn compacted_state_says_the_same_and_repeats_nothing() {
    let folder = tempfile::tempdir().unwrap();
    first_life(folder.path(), usize::MAX);
    let (mut journal, before) = Journal::load(folder.path()).unwrap();
    assert!(!before.repeat.is_empty());
    for _ in 0..2 {
        journal.compact().unwrap();
        let (_, after) = Journal::load(folder.path()).unwrap();
        assert_eq!((after.chain, &after.open), (before.chain, &before.open));
        assert_eq!(after.repeat, b"");
    }
}

#[tokio::test]
async fn state_stays_small_and_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let out = Arc::default();
    let sink = Box::new(Deadly {
        out: Arc::clone(&out),
        left: usize::MAX,
    });
    let journal = Some(Journal::load(folder.path()).unwrap());
    let queue = Arc::new(Queue::default());
    let mut writer = Writer::new(Arc::clone(&queue), sink, journal, identity(), LONG);
    let opener = Opener::new(queue);
    let open_all_along = open(&opener, &mut writer, "/open");
    for _ in 0..600 {
        open(&opener, &mut writer, "/short").close(done());
        writer.turn();
    }
    let metadata = fs::metadata(folder.path().join("record.journal")).unwrap();
    assert!(metadata.len() < 300 * 1024, "{}", metadata.len());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert!(out.lock().unwrap().len() > 1024 * 1024);
    drop(writer);
    drop(open_all_along);
    let output = second_life(folder.path(), out).await;
    assert_eq!(verified(&output, "after compaction"), 1 + 600 * 2 + 1 + 2);
}
