//! Files that the kubelet replaces under our feet (the bootstrap token, the cluster's CA), read again when they are used.
//!
//! There is no watcher and no timer: an idle sidecar does nothing at all, a used one looks at most once in [`FRESH`]. A look
//! compares content, so the kubelet's `..data` symlink swap, a write in place and a copied folder are all seen alike.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How old a look may be. The kubelet renews a token at 80 % of its life, minutes before the old one ends.
pub const FRESH: Duration = Duration::from_secs(5);

/// A file that could not be used; never repeats its content.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It has not the form that it should have.
    #[error("{path} {message}")]
    Content {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

/// A file's content as a value, as fresh as [`FRESH`] or [`Self::look_again`] makes it.
pub struct Fresh<T> {
    path: PathBuf,
    parse: fn(&str) -> Result<T, String>,
    state: Mutex<State<T>>,
}

struct State<T> {
    looked: Instant,
    text: String,
    value: Arc<T>,
    generation: u64,
}

impl<T> Fresh<T> {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// When it cannot be read or parsed.
    pub fn open(path: PathBuf, parse: fn(&str) -> Result<T, String>) -> Result<Self, FileError> {
        let text = read(&path)?;
        let value = Arc::new(parse(&text).map_err(|message| FileError::Content {
            path: path.clone(),
            message,
        })?);
        let state = State {
            looked: Instant::now(),
            text,
            value,
            generation: 0,
        };
        Ok(Self {
            path,
            parse,
            state: Mutex::new(state),
        })
    }

    /// The value and its generation, which grows with each change. A file that became unreadable or broken keeps its last
    /// good value and is logged: what it gave last may still work, and if not, the API server says so.
    pub fn get(&self) -> (Arc<T>, u64) {
        self.at_most(FRESH)
    }

    /// As [`Self::get`], but looks at the file in any case.
    pub fn look_again(&self) -> (Arc<T>, u64) {
        self.at_most(Duration::ZERO)
    }

    fn at_most(&self, age: Duration) -> (Arc<T>, u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= age {
            state.looked = Instant::now();
            if let Err(error) = self.refresh(&mut state) {
                tracing::error!(%error, "keeping the last good content");
            }
        }
        (Arc::clone(&state.value), state.generation)
    }

    fn refresh(&self, state: &mut State<T>) -> Result<(), FileError> {
        let text = read(&self.path)?;
        if text == state.text {
            return Ok(());
        }
        let parsed = (self.parse)(&text);
        let value = parsed.map_err(|message| FileError::Content {
            path: self.path.clone(),
            message,
        })?;
        *state = State {
            looked: state.looked,
            text,
            value: Arc::new(value),
            generation: state.generation + 1,
        };
        tracing::info!(path = %self.path.display(), generation = state.generation, "read a changed file");
        Ok(())
    }
}

fn read(path: &Path) -> Result<String, FileError> {
    std::fs::read_to_string(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn number(text: &str) -> Result<u32, String> {
        text.trim().parse().map_err(|_| "is no number".to_owned())
    }

    /// Does what `pkg/volume/util/atomic_writer.go` does.
    fn swap(folder: &Path, version: &str, content: &str) {
        std::fs::create_dir(folder.join(version)).unwrap();
        std::fs::write(folder.join(version).join("token"), content).unwrap();
        symlink(version, folder.join("..data_tmp")).unwrap();
        std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    }

    #[test]
    fn sees_the_kubelets_swap_and_keeps_the_last_good() {
        let folder = tempfile::tempdir().unwrap();
        swap(folder.path(), "..1", "1");
        symlink("..data/token", folder.path().join("token")).unwrap();
        let file = Fresh::open(folder.path().join("token"), number).unwrap();
        assert_eq!(file.get(), (Arc::new(1), 0));
        swap(folder.path(), "..2", "2");
        assert_eq!(*file.get().0, 1, "not looked at again yet");
        assert_eq!(file.look_again(), (Arc::new(2), 1));
        swap(folder.path(), "..3", "garbage");
        assert_eq!(file.look_again(), (Arc::new(2), 1), "the last good");
        std::fs::remove_file(folder.path().join("token")).unwrap();
        assert_eq!(file.look_again(), (Arc::new(2), 1), "the last good");
    }

    #[test]
    fn a_bad_file_fails_the_start_and_is_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(matches!(
            Fresh::open(path.clone(), number),
            Err(FileError::Read { .. })
        ));
        std::fs::write(&path, "secret").unwrap();
        let error = Fresh::open(path, number).err().unwrap().to_string();
        assert!(
            error.ends_with("token is no number") && !error.contains("secret"),
            "{error}"
        );
    }
}
