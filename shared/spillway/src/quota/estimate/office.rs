//! Documents of Word and Excel: ZIP archives of XML files (ECMA-376, "Office Open XML").

use super::inflate::Inflater;

/// Beginning of an archive, and of each part in it (PKWARE, ".ZIP File Format Specification").
pub const SIGNATURE: &[u8] = b"PK\x03\x04";

/// Length of the header of a part without its name and its extra field.
const HEADER_BYTES: usize = 30;

/// Method of a part that is not compressed.
const STORED: u16 = 0;

/// Returns the content of all parts that can be read. The directory of the archive is not used,
/// because it can name other sizes than the parts have.
pub fn parts(file: &[u8], inflater: &mut Inflater) -> Vec<Vec<u8>> {
    let starts: Vec<usize> =
        (0..file.len()).filter(|at| file[*at..].starts_with(SIGNATURE)).chain([file.len()]).collect();
    let part = |bounds: &[usize]| {
        let header = file.get(bounds[0]..)?;
        let number = |at: usize| Some(u16::from_le_bytes(header.get(at..at + 2)?.try_into().ok()?));
        let data_at = HEADER_BYTES + usize::from(number(26)?) + usize::from(number(28)?);
        if number(8)? == STORED {
            return Some(file.get(bounds[0] + data_at..bounds[1])?.to_vec());
        }
        inflater.inflate(header.get(data_at..)?, false)
    };
    starts.windows(2).filter_map(part).collect()
}

/// Returns the text of an XML file, with a blank for each tag.
pub fn without_tags(xml: &str) -> String {
    let mut text = String::with_capacity(xml.len() / 4);
    for part in xml.split('<') {
        text.push_str(part.split_once('>').map_or(part, |(_, text)| text));
        text.push(' ');
    }
    text
}
