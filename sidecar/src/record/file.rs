//! A record file: synced before a call goes on, many lines in one sync, rotated by size.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::RecordError;
use super::sink::Sink;

/// Lines in one sync. A successor writes at most this many again, and verification accepts as many.
const BATCH: usize = tollgate_shared::record::MAX_REPEATED;

/// Where the record file is and how it is rotated: `FILE`, `FILE.1`, …, the highest number the oldest.
#[derive(Clone, Debug)]
pub struct FileConfig {
    /// Its path.
    pub path: PathBuf,
    /// Size in bytes from which it is rotated; 0 never.
    pub max_bytes: u64,
    /// Number of rotated files to keep.
    pub keep: u32,
}

impl FileConfig {
    pub(super) fn open(self) -> Result<FileSink, RecordError> {
        FileSink::open(self.clone()).map_err(|error| RecordError::File {
            path: self.path,
            error,
        })
    }

    fn rotated(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

pub(super) struct FileSink {
    config: FileConfig,
    file: File,
    len: u64,
}

impl FileSink {
    fn open(config: FileConfig) -> io::Result<Self> {
        let mut file = create(&config.path)?;
        let mut len = file.metadata()?.len();
        if cut_short(&mut file, len)? {
            // A killed predecessor's half line stays what it is; ours start on a line of their own.
            file.write_all(b"\n")?;
            len += 1;
        }
        Ok(Self { config, file, len })
    }

    /// Renames from the oldest on, so that a fault in between loses nothing and the next attempt goes on.
    fn rotate(&mut self) -> io::Result<()> {
        let keep = self.config.keep;
        if keep == 0 {
            missing_is_fine(fs::remove_file(&self.config.path))?;
        }
        for number in (1..=keep).rev() {
            let from = match number {
                1 => self.config.path.clone(),
                _ => self.config.rotated(number - 1),
            };
            missing_is_fine(fs::rename(from, self.config.rotated(number)))?;
        }
        self.file = create(&self.config.path)?;
        self.len = 0;
        let folder = self.config.path.parent();
        let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
    }
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    options.open(path)
}

fn cut_short(file: &mut File, len: u64) -> io::Result<bool> {
    let mut last = *b"\n";
    if len > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    Ok(last != *b"\n")
}

fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

impl Sink for FileSink {
    fn batch(&self) -> usize {
        BATCH
    }

    fn begin(&mut self) -> io::Result<()> {
        if self.config.max_bytes > 0 && self.len >= self.config.max_bytes {
            self.rotate()?;
        }
        Ok(())
    }

    fn ready(&mut self, _limit: Duration) -> io::Result<bool> {
        Ok(true)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.file.write(bytes)?;
        self.len += taken as u64;
        Ok(taken)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn undo(&mut self, written: usize) -> bool {
        let before = self.len.saturating_sub(written as u64);
        let undone = self.file.set_len(before).is_ok();
        if undone {
            self.len = before;
        }
        undone
    }
}
