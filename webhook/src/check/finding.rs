//! One thing that is not as it should be.

use std::fmt;

use serde::Serialize;

use crate::reason::one_line;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// Something that should hold does not.
    Error,
    /// A way round, or something that nobody can see.
    Warn,
    /// So by design; not counted.
    Info,
}

/// How many names are told.
const NAMED: usize = 5;

/// Some of the names, and how many there are besides.
pub(crate) fn named(names: &[&str]) -> String {
    let (told, others) = names.split_at(names.len().min(NAMED));
    let told = told.join(", ");
    match others.len() {
        0 => told,
        others => format!("{told} and {others} more"),
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    /// Stable across releases; a reason code of admission where admission would say so.
    pub(crate) code: &'static str,
    /// `kind/name`.
    pub(crate) object: String,
    /// What is wrong; what to do.
    pub(crate) text: String,
}

impl Finding {
    pub(crate) fn new(
        level: Level,
        code: &'static str,
        object: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        // Names and messages may hold anything, and a terminal is shown them.
        Self {
            level,
            code,
            object: one_line(&object.into()),
            text: one_line(&text.into()),
        }
    }

    pub(crate) fn error(
        code: &'static str,
        object: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        Self::new(Level::Error, code, object, text)
    }

    pub(crate) fn warn(
        code: &'static str,
        object: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        Self::new(Level::Warn, code, object, text)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
        };
        write!(
            f,
            "{level:<5}  {}  {}  {}",
            self.code, self.object, self.text
        )
    }
}
