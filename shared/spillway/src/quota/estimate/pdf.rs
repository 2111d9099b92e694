//! Pages of a PDF (ISO 32000-2, "Document management – Portable document format").
//!
//! The page tree is followed from its root. So a file that refers to one page many times has that
//! many pages, and a tree of fields or names does not count. The table of objects is not read:
//! every object in the file counts, and an object with several versions counts as its largest.

mod lexer;

use std::collections::HashMap;

use super::inflate::Inflater;
use lexer::{Lexer, Token};

/// Maximum depth of a page tree.
const MAX_DEPTH: u32 = 64;

/// Maximum bytes to read, per byte of the file: objects may overlap.
const MAX_BYTES_READ: usize = 8;

/// Returns the maximum number of pages; `None` if the file does not show it, for example because it
/// is encrypted.
pub fn pages(file: &[u8], inflater: &mut Inflater) -> Option<u64> {
    let mut tree = PageTree::default();
    let mut bytes_left = file.len().saturating_mul(MAX_BYTES_READ);
    for (number, at) in headers(file) {
        let mut lexer = Lexer::new(&file[at..]);
        let object = tree.add(number, &mut lexer)?;
        let is_stream = lexer.read() == Token::Word(b"stream");
        bytes_left = bytes_left.checked_sub(lexer.position())?;
        if is_stream && object.has_objects() {
            let first = object.first_object_at.filter(|_| object.is_inflatable())?;
            let content = inflater.inflate(lexer.after_line_break(), true)?;
            tree.add_all(&content, first)?;
        }
    }
    let roots = std::mem::take(&mut tree.roots);
    let mut known = HashMap::new();
    roots.into_iter().map(|root| tree.pages_below(root, 0, &mut known)).reduce(|most, pages| Some(most?.max(pages?)))?
}

/// Returns the number of each object, and where its content begins.
fn headers(file: &[u8]) -> impl Iterator<Item = (u32, usize)> {
    file.windows(3).enumerate().filter(|(_, word)| *word == b"obj").filter_map(|(at, _)| {
        let mut words = file[at.saturating_sub(32)..at].rsplit(|byte| lexer::is_blank(*byte)).filter(|w| !w.is_empty());
        words.next()?.iter().all(u8::is_ascii_digit).then_some(())?;
        let number = words.next()?;
        let digits = number.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let number = str::from_utf8(&number[number.len() - digits..]).ok()?.parse().ok()?;
        Some((number, at + 3))
    })
}

/// Properties of an object that decide whether it is a stream of objects.
#[derive(Default)]
struct Object {
    is_named_object_stream: bool,
    has_count: bool,
    first_object_at: Option<usize>,
    filters: usize,
    has_predictor: bool,
}

impl Object {
    fn has_objects(&self) -> bool {
        self.is_named_object_stream || (self.has_count && self.first_object_at.is_some())
    }

    fn is_inflatable(&self) -> bool {
        self.filters == 1 && !self.has_predictor
    }
}

#[derive(Default)]
struct PageTree {
    /// Children of each object, for each of its versions. A page has none.
    children: HashMap<u32, Vec<Vec<u32>>>,
    /// Objects that a catalog names as its page tree.
    roots: Vec<u32>,
}

impl PageTree {
    /// Adds the objects of a stream, which begins with their numbers and places. `None` if they
    /// cannot be read.
    fn add_all(&mut self, content: &[u8], first: usize) -> Option<()> {
        let mut index = Lexer::new(content.get(..first)?);
        while let Token::Integer(number) = index.read() {
            let Token::Integer(offset) = index.read() else { return None };
            let at = first.checked_add(usize::try_from(offset).ok()?)?;
            self.add(number, &mut Lexer::new(content.get(at..)?))?;
        }
        Some(())
    }

    /// Adds the object at which `lexer` stands. `None` if its children cannot be read.
    fn add(&mut self, number: u32, lexer: &mut Lexer) -> Option<Object> {
        let (mut object, mut children, mut depth) = (Object::default(), Vec::new(), 0u32);
        loop {
            match lexer.read() {
                Token::Open => depth += 1,
                Token::Close => depth = depth.saturating_sub(1),
                Token::End => break,
                Token::Name(name) => match &*name {
                    b"Kids" => references(lexer, &mut children)?,
                    b"Pages" => self.roots.extend(lexer.clone().integer()),
                    b"ObjStm" => object.is_named_object_stream = true,
                    b"N" => object.has_count = true,
                    b"First" => {
                        object.first_object_at = lexer.clone().integer().and_then(|at| usize::try_from(at).ok());
                    }
                    b"Predictor" => object.has_predictor = true,
                    name if name.ends_with(b"Decode") => object.filters += 1,
                    _ => {}
                },
                Token::Integer(_) | Token::Word(_) => {}
            }
            if depth == 0 {
                break;
            }
        }
        self.children.entry(number).or_default().push(children);
        Some(object)
    }

    /// Returns the number of pages below an object; `None` if it does not exist, or if the tree is
    /// too deep or has a cycle.
    fn pages_below(&self, number: u32, depth: u32, known: &mut HashMap<u32, u64>) -> Option<u64> {
        if let Some(pages) = known.get(&number) {
            return Some(*pages);
        }
        if depth > MAX_DEPTH {
            return None;
        }
        let mut most = 0;
        for children in self.children.get(&number)? {
            let mut pages = u64::from(children.is_empty());
            for child in children {
                pages = pages.saturating_add(self.pages_below(*child, depth + 1, known)?);
            }
            most = most.max(pages);
        }
        known.insert(number, most);
        Some(most)
    }
}

/// Reads an array of references. `None` if it is anything else.
fn references(lexer: &mut Lexer, numbers: &mut Vec<u32>) -> Option<()> {
    if lexer.read() != Token::Open {
        return None;
    }
    loop {
        match (lexer.read(), lexer.clone().read()) {
            (Token::Close, _) => return Some(()),
            (Token::Integer(number), Token::Integer(_)) => {
                lexer.read();
                (lexer.read() == Token::Word(b"R")).then(|| numbers.push(number))?;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::ZlibEncoder};

    use super::*;

    fn count(file: &[u8]) -> Option<u64> {
        pages(file, &mut Inflater::default())
    }

    fn kids(numbers: impl IntoIterator<Item = u32>) -> String {
        numbers.into_iter().map(|number| format!("{number} 0 R ")).collect()
    }

    /// Returns a file with a root (object 2) over `children`, and `objects`.
    fn file(children: &str, objects: &str) -> Vec<u8> {
        format!(
            "%PDF-1.7\n1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n2 0 obj\n<</Type/Pages/Count 1/Kids[{children}]>>\n\
             endobj\ntrailer\n<</Root 1 0 R>>\n{objects}"
        )
        .into_bytes()
    }

    fn page(number: u32) -> String {
        format!("{number} 0 obj\n<</Type/Page/Parent 2 0 R>>\nendobj\n")
    }

    /// Returns a file whose pages are in a compressed stream of objects, with these members.
    fn compressed(pages: u32, members: &str) -> Vec<u8> {
        let index: String = (0..pages).map(|at| format!("{} {} ", 10 + at, 22 * at)).collect();
        let content = format!("{index}{}", "<</Type/Page/Dur 001>>".repeat(pages as usize));
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content.as_bytes()).expect("no I/O");
        let mut whole =
            file(&kids(10..10 + pages), &format!("5 0 obj\n<</N {pages}/First {}{members}>>stream\n", index.len()));
        whole.extend(encoder.finish().expect("no I/O"));
        whole.extend(b"\nendstream\nendobj\n");
        whole
    }

    #[test]
    fn the_pages_of_the_tree_are_counted() {
        let pages: String = (3..103).map(page).collect();
        let hundred = file(&kids(3..103), &pages);
        assert_eq!(count(&hundred), Some(100));
        assert!(hundred.len() < 20_000, "{}", hundred.len());
        assert_eq!(count(&compressed(500, "/Type/ObjStm/Filter/FlateDecode")), Some(500));
        assert_eq!(count(&compressed(500, "/Filter/FlateDecode")), Some(500), "the type may be missing");
        let form = format!("{}9 0 obj\n<</Fields[8 0 R]/Kids[3 0 R 3 0 R 3 0 R]>>\nendobj\n", page(3));
        assert_eq!(count(&file(&kids([3]), &form)), Some(1), "fields are not pages");
    }

    #[test]
    fn a_page_counts_as_often_as_the_tree_refers_to_it() {
        assert_eq!(count(&file(&kids([3, 3, 3]), &page(3))), Some(3));
        let fold = |number: u32| format!("{number} 0 obj\n<</K#69ds %]\n[{}]>>endobj\n", kids([number + 1; 10]));
        let folds: String = (3..13).map(fold).collect();
        assert_eq!(count(&file(&kids([3]), &format!("{folds}{}", page(13)))), Some(10_000_000_000));
        let untyped = "3 0 obj\n<</X (2 0 obj [ endobj \\) )>>\nendobj\n";
        assert_eq!(count(&file(&kids([3, 3]), untyped)), Some(2));
    }

    #[test]
    fn a_tree_that_cannot_be_followed_has_no_count() {
        for (what, file) in [
            ("nothing", b"%PDF-1.7\n".to_vec()),
            ("a cycle", file(&kids([2]), "")),
            ("a missing page", file(&kids([7]), &page(3))),
            ("children elsewhere", file("]/Kids 9 0 R/X[", &page(3))),
            ("an unknown filter", compressed(5, "/Type/ObjStm/Filter/LZWDecode/X/FlateDecode")),
            ("a predictor", compressed(5, "/Type/ObjStm/Filter/FlateDecode/Predictor 12")),
        ] {
            assert_eq!(count(&file), None, "{what}");
        }
    }
}
