//! Sinks that fail, and files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex, mpsc};

use tokio::task::{JoinSet, yield_now};

use super::*;

/// What a [`Faulty`] sink does with the next bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Takes,
    Fails,
    TakesThenFails(usize),
}

#[derive(Clone)]
struct Faulty(Arc<Mutex<(Mode, Vec<u8>)>>);

impl Faulty {
    fn new() -> Self {
        Self(Arc::new(Mutex::new((Mode::Takes, Vec::new()))))
    }
    fn set(&self, mode: Mode) {
        self.0.lock().unwrap().0 = mode;
    }
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().1.clone()).unwrap()
    }
}

impl Sink for Faulty {
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
        let mut state = self.0.lock().unwrap();
        let taken = match state.0 {
            Mode::Takes => bytes.len(),
            Mode::TakesThenFails(taken) => {
                state.0 = Mode::Fails;
                taken
            }
            Mode::Fails => return Err(io::Error::from(io::ErrorKind::StorageFull)),
        };
        state.1.extend_from_slice(bytes.get(..taken).unwrap());
        Ok(taken)
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn undo(&mut self, written: usize) -> bool {
        written == 0
    }
}

async fn until_opened(recorder: &Recorder, uri: &str) -> OpenCall {
    loop {
        if let Ok(call) = recorder.open(opening(uri)).await {
            return call;
        }
        yield_now().await;
    }
}

#[tokio::test]
async fn a_failing_sink_refuses_and_loses_nothing() {
    for (mode, lines) in [(Mode::Fails, 4), (Mode::TakesThenFails(500), 6)] {
        let folder = tempfile::tempdir().unwrap();
        let sink = Faulty::new();
        let journal = Some(Journal::load(folder.path()).unwrap());
        let recorder =
            Recorder::with(Box::new(sink.clone()), journal, identity(), LONG, false).unwrap();
        let call = recorder.open(opening("/before")).await.unwrap();
        sink.set(mode);
        // A half line keeps its caller waiting for the rest: it gives up here.
        let wait = tokio::time::timeout(
            Duration::from_millis(50),
            recorder.open(opening("/refused")),
        );
        assert!(!matches!(wait.await, Ok(Ok(_))));
        call.close(done());
        sink.set(Mode::Takes);
        until_opened(&recorder, "/after").await.close(done());
        assert!(recorder.shutdown(LONG).await);
        let chain = chain(&sink.text());
        assert_eq!(chain.len(), lines, "{}", sink.text());
        let refused = chain
            .iter()
            .filter(|(_, outcome)| outcome == outcome::REFUSED);
        assert_eq!(refused.count(), (lines - 4) / 2);
        assert_eq!(recorder.stats().open, 0);
    }
}

#[tokio::test]
async fn a_reader_that_went_away_refuses() {
    let (recorder, reader, _writer) = over_pipe(LONG, None);
    drop(reader);
    for _ in 0..3 {
        assert!(recorder.open(opening("/")).await.is_err());
    }
    assert_eq!((recorder.stats().written, recorder.stats().refused), (0, 3));
}

#[tokio::test]
async fn a_half_written_line_is_completed_first_and_its_call_closed() {
    let (recorder, mut reader, mut writer) = over_pipe(Duration::from_millis(50), None);
    let filled = fill(&mut writer);
    let mut page = [0; 4096];
    reader.read_exact(&mut page).unwrap();
    // One page has room, and the line is longer than that.
    let long = format!("/long/{}", "x".repeat(5000));
    assert!(recorder.open(opening(&long)).await.is_err());
    assert!(recorder.open(opening("/refused")).await.is_err());
    reader.read_exact(&mut vec![0; filled - 4096]).unwrap();
    drop(writer);
    let reading = std::thread::spawn(move || text(reader));
    until_opened(&recorder, "/after").await.close(done());
    assert!(recorder.shutdown(LONG).await);
    drop(recorder);
    let all = reading.join().unwrap();
    assert!(!all.contains("/refused"), "{all}");
    let lines: Vec<&str> = all.lines().collect();
    assert!(
        lines[0].contains("/long/")
            && lines[0].contains("\"tollgate.dev/truncated\":\"requestURI\"")
    );
    assert!(lines[1].contains("record-unavailable"), "{all}");
    let outcomes: Vec<String> = chain(&all)
        .into_iter()
        .map(|(_, outcome)| outcome)
        .collect();
    assert_eq!(outcomes, ["", "refused", "", "completed"]);
}

#[tokio::test]
async fn a_caller_that_goes_away_while_it_waits_leaves_no_line() {
    let (recorder, mut reader, mut writer) = over_pipe(LONG, None);
    let filled = fill(&mut writer);
    let waiting = tokio::time::timeout(Duration::from_millis(20), recorder.open(opening("/gone")));
    assert!(waiting.await.is_err());
    reader.read_exact(&mut vec![0; filled]).unwrap();
    drop(writer);
    recorder
        .open(opening("/stays"))
        .await
        .unwrap()
        .close(done());
    assert!(recorder.shutdown(LONG).await);
    drop(recorder);
    let all = text(reader);
    assert!(!all.contains("/gone"), "{all}");
    assert_eq!(chain(&all).len(), 2);
}

/// Counts syncs; each waits until it is let go.
struct Gated {
    syncs: mpsc::Sender<()>,
    gate: mpsc::Receiver<()>,
}

impl Sink for Gated {
    fn batch(&self) -> usize {
        64
    }
    fn begin(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn ready(&mut self, _limit: Duration) -> io::Result<bool> {
        Ok(true)
    }
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn sync(&mut self) -> io::Result<()> {
        self.syncs.send(()).map_err(io::Error::other)?;
        // Once the gate is gone, nobody waits.
        self.gate.recv().unwrap_or_default();
        Ok(())
    }
    fn undo(&mut self, _written: usize) -> bool {
        true
    }
}

#[tokio::test]
async fn concurrent_calls_share_a_sync() {
    let (syncs, synced) = mpsc::channel();
    let (open_gate, gate) = mpsc::channel();
    let sink = Box::new(Gated { syncs, gate });
    let recorder = Recorder::with(sink, None, identity(), LONG, false).unwrap();
    let mut calls = JoinSet::new();
    let spawn = |calls: &mut JoinSet<OpenCall>| {
        let recorder = recorder.clone();
        calls.spawn(async move { recorder.open(opening("/")).await.unwrap() });
    };
    spawn(&mut calls);
    yield_now().await;
    synced.recv().unwrap();
    // While the first sync hangs, forty others come; they are polled once before this task goes on.
    (0..40).for_each(|_| spawn(&mut calls));
    yield_now().await;
    open_gate.send(()).unwrap();
    open_gate.send(()).unwrap();
    let open = calls.join_all().await;
    assert_eq!(open.len(), 41);
    synced.recv().unwrap();
    assert!(synced.try_recv().is_err(), "more than two syncs");
    drop(open_gate);
    drop(open);
    assert!(recorder.shutdown(LONG).await);
    assert_eq!(recorder.stats().written, 82);
}

fn to_file(path: &Path, max_bytes: u64, keep: u32) -> Recorder {
    Recorder::start(RecorderConfig {
        identity: identity(),
        sink: SinkConfig::File(FileConfig {
            path: path.to_owned(),
            max_bytes,
            keep,
        }),
        state_dir: None,
        deadline: LONG,
        keep_commands: false,
    })
    .unwrap()
}

#[tokio::test]
async fn files_are_private_and_rotate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record");
    let recorder = to_file(&path, 3000, 2);
    for _ in 0..10 {
        recorder.open(opening("/")).await.unwrap().close(done());
    }
    assert!(recorder.shutdown(LONG).await);
    let mut names: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["record", "record.1", "record.2"]);
    let mut files = Vec::new();
    for name in names {
        let path = folder.path().join(name);
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert!(metadata.len() < 3000 + 2 * 1500, "{}", metadata.len());
        files.push(path);
    }
    let summary = crate::verify::run(&crate::verify::Args {
        files,
        partial: true,
        ..Default::default()
    });
    let summary = summary.unwrap();
    assert!(summary.is_good(), "{}", summary.explain());
}

#[tokio::test]
async fn a_file_continues_on_a_line_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record");
    fs::write(&path, "{\"annotations\":{\"tollg").unwrap();
    let recorder = to_file(&path, 0, 0);
    recorder.open(opening("/")).await.unwrap().close(done());
    assert!(recorder.shutdown(LONG).await);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(chain(text.split_once('\n').unwrap().1).len(), 2);
    let missing = folder.path().join("none").join("record");
    let config = FileConfig {
        path: missing,
        max_bytes: 0,
        keep: 0,
    };
    let error = config.open().err().unwrap().to_string();
    assert!(
        error.contains("none/record") && error.contains("--record-file"),
        "{error}"
    );
}
