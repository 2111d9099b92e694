//! Reads a trace: CSV, plain or gzipped, one request per row, sorted by arrival.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use csv::StringRecord;
use flate2::bufread::MultiGzDecoder;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A request of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Arrival time in milliseconds since the start of the trace.
    pub arrival_ms: u64,
    /// Tenant that sends it.
    pub tenant: String,
    /// Class of the model that it asks for.
    pub model_class: String,
    /// Input tokens, at least 1.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
}

/// Reads the first `limit` rows of the file.
///
/// # Errors
/// Returns an error if the file is not a valid trace. The error names the line and the column.
pub fn read_file(path: &Path, limit: usize) -> anyhow::Result<Vec<Row>> {
    let file = File::open(path).with_context(|| format!("cannot open the trace {}", path.display()))?;
    read(BufReader::new(file), limit).with_context(|| format!("in the trace {}", path.display()))
}

fn read(mut source: impl BufRead, limit: usize) -> anyhow::Result<Vec<Row>> {
    let gzipped = source.fill_buf()?.starts_with(&GZIP_MAGIC);
    if gzipped { parse(MultiGzDecoder::new(source), limit) } else { parse(source, limit) }
}

fn parse(source: impl Read, limit: usize) -> anyhow::Result<Vec<Row>> {
    let mut reader = csv::Reader::from_reader(source);
    let columns = Columns::find(reader.headers().context("line 1")?)?;
    let mut rows: Vec<Row> = Vec::new();
    for record in reader.records().take(limit) {
        // The error of a ragged or non-UTF-8 record already names its line.
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        let row = columns.row(&record).with_context(|| format!("line {line}"))?;
        let previous_ms = rows.last().map_or(0, |last| last.arrival_ms);
        ensure!(
            row.arrival_ms >= previous_ms,
            "line {line}: arrival_ms {} is earlier than {previous_ms} on the line before",
            row.arrival_ms
        );
        rows.push(row);
    }
    ensure!(!rows.is_empty(), "the trace has no rows");
    Ok(rows)
}

/// Positions of the columns.
struct Columns {
    arrival_ms: usize,
    tenant: usize,
    model_class: usize,
    input_tokens: usize,
    output_tokens: usize,
}

impl Columns {
    fn find(headers: &StringRecord) -> anyhow::Result<Self> {
        let position = |name: &str| {
            headers
                .iter()
                .position(|header| header.trim() == name)
                .with_context(|| format!("line 1: the column {name} is missing"))
        };
        Ok(Self {
            arrival_ms: position("arrival_ms")?,
            tenant: position("tenant")?,
            model_class: position("model_class")?,
            input_tokens: position("input_tokens")?,
            output_tokens: position("output_tokens")?,
        })
    }

    fn row(&self, record: &StringRecord) -> anyhow::Result<Row> {
        let input_tokens = number(record, self.input_tokens, "input_tokens")?;
        ensure!(input_tokens > 0, "input_tokens is 0; a prompt has at least one token");
        Ok(Row {
            arrival_ms: number(record, self.arrival_ms, "arrival_ms")?,
            tenant: text(record, self.tenant, "tenant")?,
            model_class: text(record, self.model_class, "model_class")?,
            input_tokens,
            output_tokens: number(record, self.output_tokens, "output_tokens")?,
        })
    }
}

fn text(record: &StringRecord, index: usize, name: &str) -> anyhow::Result<String> {
    match record.get(index).map(str::trim) {
        Some(value) if !value.is_empty() => Ok(value.to_owned()),
        _ => bail!("{name} is empty"),
    }
}

fn number(record: &StringRecord, index: usize, name: &str) -> anyhow::Result<u64> {
    let value = text(record, index, name)?;
    value.parse().with_context(|| format!("{name} is {value:?}, which is not a whole number"))
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const TWO_ROWS: &str = "arrival_ms,tenant,model_class,input_tokens,output_tokens\n0,a,chat,3,4\n7,b,small,1,0\n";

    fn check_refused(csv: &str, expected: &str) {
        let error = format!("{:#}", read(Cursor::new(csv), usize::MAX).expect_err("must be refused"));
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }

    #[test]
    fn rows_are_read_in_order() {
        let rows = read(Cursor::new(TWO_ROWS), usize::MAX).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(
            rows[1],
            Row { arrival_ms: 7, tenant: "b".into(), model_class: "small".into(), input_tokens: 1, output_tokens: 0 }
        );
    }

    #[test]
    fn a_gzipped_trace_reads_like_the_plain_one() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(TWO_ROWS.as_bytes()).unwrap();
        let zipped = encoder.finish().unwrap();
        assert_eq!(read(Cursor::new(zipped), usize::MAX).unwrap(), read(Cursor::new(TWO_ROWS), usize::MAX).unwrap());
    }

    #[test]
    fn columns_are_found_by_name_whatever_their_order() {
        let rows =
            read(Cursor::new("output_tokens,extra,tenant,input_tokens,arrival_ms,model_class\n4,x,a,3,9,chat\n"), 10);
        assert_eq!(rows.unwrap()[0].arrival_ms, 9);
    }

    #[test]
    fn a_limit_keeps_the_first_rows() {
        assert_eq!(read(Cursor::new(TWO_ROWS), 1).unwrap().len(), 1);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let header = "arrival_ms,tenant,model_class,input_tokens,output_tokens\n";
        check_refused("arrival_ms,tenant,model_class,input_tokens\n", "line 1: the column output_tokens is missing");
        check_refused(&format!("{header}0,a,chat,1,1\n1,a,chat,many,1\n"), "line 3: input_tokens is \"many\"");
        check_refused(&format!("{header}0,a,chat,1,-1\n"), "line 2: output_tokens is \"-1\"");
        check_refused(&format!("{header}0,,chat,1,1\n"), "line 2: tenant is empty");
        check_refused(&format!("{header}0,a,chat,0,1\n"), "line 2: input_tokens is 0");
        check_refused(&format!("{header}5,a,chat,1,1\n4,a,chat,1,1\n"), "line 3: arrival_ms 4 is earlier than 5");
        check_refused(&format!("{header}0,a,chat,1,1\n1,a\n"), "line: 3");
        check_refused(header, "no rows");
    }
}
