//! Opens what is to be verified: plain text, or gzip, by which kubelets and API servers keep rotated logs.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

/// Bytes read from a file at once.
const BUFFER: usize = 256 * 1024;
/// What stands for standard input.
const STDIN: &str = "-";

/// A file, by its path.
pub(super) fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    if path.as_os_str() == STDIN {
        return decode(BufReader::with_capacity(BUFFER, io::stdin().lock()));
    }
    decode(BufReader::with_capacity(BUFFER, File::open(path)?))
}

/// Whether it can be read twice.
pub(super) fn is_file(path: &Path) -> io::Result<bool> {
    Ok(path.as_os_str() != STDIN && path.metadata()?.is_file())
}

/// Decides by the first bytes. What is no text line by line is an error here, not a file without records.
fn decode(mut reader: impl BufRead + 'static) -> io::Result<Box<dyn BufRead>> {
    match reader.fill_buf()? {
        [0x1f, 0x8b, ..] => {
            let plain = MultiGzDecoder::new(reader);
            Ok(Box::new(BufReader::with_capacity(BUFFER, plain)))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Err(io::Error::other("it is compressed with zstd; use zstd -d"))
        }
        [b'P', b'K', 3, 4, ..] => Err(io::Error::other("it is a zip archive; unpack it")),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err(io::Error::other(
            "it is UTF-16, as older PowerShells write with >; save it as UTF-8",
        )),
        _ => Ok(Box::new(reader)),
    }
}
