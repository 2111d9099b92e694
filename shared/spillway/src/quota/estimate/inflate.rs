//! Decompression with bounded work, for files from callers.

use flate2::{Decompress, FlushDecompress, Status};

/// Maximum bytes that are read and written for one file.
const MAX_BYTES: u64 = 16 << 20;

/// Length by which the output grows.
const CHUNK_BYTES: usize = 64 << 10;

/// Inflates the parts of one file.
pub struct Inflater {
    bytes_left: u64,
}

impl Default for Inflater {
    fn default() -> Self {
        Self { bytes_left: MAX_BYTES }
    }
}

impl Inflater {
    /// Returns the content of the compressed stream at the beginning of `data`; `None` if there is
    /// no complete stream, or if the file takes too much work.
    pub fn inflate(&mut self, data: &[u8], has_zlib_header: bool) -> Option<Vec<u8>> {
        let mut stream = Decompress::new(has_zlib_header);
        let mut content = Vec::new();
        loop {
            let before = (stream.total_in(), stream.total_out());
            let rest = data.get(usize::try_from(before.0).ok()?..)?;
            content.reserve(CHUNK_BYTES);
            let status = stream.decompress_vec(rest, &mut content, FlushDecompress::None).ok()?;
            let moved = stream.total_in() - before.0 + stream.total_out() - before.1;
            self.bytes_left = self.bytes_left.saturating_sub(moved);
            match status {
                Status::StreamEnd => return Some(content),
                _ if moved == 0 || self.is_exhausted() => return None,
                _ => {}
            }
        }
    }

    /// Returns whether the file takes too much work.
    pub fn is_exhausted(&self) -> bool {
        self.bytes_left == 0
    }
}
