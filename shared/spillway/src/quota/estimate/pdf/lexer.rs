//! Words of a PDF (ISO 32000-2, "Lexical conventions").

use std::borrow::Cow;

/// A word of an object.
#[derive(Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A name, without its slash and with its escapes resolved.
    Name(Cow<'a, [u8]>),
    Integer(u32),
    /// Beginning of an array or a dictionary.
    Open,
    /// End of an array or a dictionary.
    Close,
    /// A string, another number or a keyword.
    Word(&'a [u8]),
    /// End of the file.
    End,
}

/// Reads one word after the other.
#[derive(Clone)]
pub struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
}

pub fn is_blank(byte: u8) -> bool {
    matches!(byte, 0 | b'\t' | b'\n' | 0x0c | b'\r' | b' ')
}

fn is_regular(byte: &u8) -> bool {
    !is_blank(*byte) && !b"()<>[]{}/%".contains(byte)
}

impl<'a> Lexer<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Returns the number of bytes that were read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Returns what follows the line break at this position.
    pub fn after_line_break(&self) -> &'a [u8] {
        let rest = self.rest();
        let rest = rest.strip_prefix(b"\r").unwrap_or(rest);
        rest.strip_prefix(b"\n").unwrap_or(rest)
    }

    /// Reads an integer.
    pub fn integer(&mut self) -> Option<u32> {
        if let Token::Integer(number) = self.read() { Some(number) } else { None }
    }

    /// Reads the next word.
    pub fn read(&mut self) -> Token<'a> {
        self.skip_blanks();
        let Some(first) = self.bytes.get(self.at) else { return Token::End };
        self.at += 1;
        match first {
            b'/' => Token::Name(unescaped(self.regular())),
            b'[' => Token::Open,
            b']' => Token::Close,
            b'<' if self.rest().starts_with(b"<") => {
                self.at += 1;
                Token::Open
            }
            b'>' if self.rest().starts_with(b">") => {
                self.at += 1;
                Token::Close
            }
            b'<' => {
                self.at += self.rest().iter().position(|byte| *byte == b'>').map_or(self.rest().len(), |at| at + 1);
                Token::Word(b"")
            }
            b'(' => {
                self.skip_string();
                Token::Word(b"")
            }
            byte if is_regular(byte) => {
                self.at -= 1;
                let word = self.regular();
                let number = word.iter().all(u8::is_ascii_digit).then(|| str::from_utf8(word).ok()?.parse().ok());
                number.flatten().map_or(Token::Word(word), Token::Integer)
            }
            _ => Token::Word(b""),
        }
    }

    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    fn regular(&mut self) -> &'a [u8] {
        let rest = self.rest();
        let (word, _) = rest.split_at(rest.iter().take_while(|byte| is_regular(byte)).count());
        self.at += word.len();
        word
    }

    fn skip_blanks(&mut self) {
        let mut is_comment = false;
        let is_skipped = |byte: &&u8| {
            is_comment = match **byte {
                b'%' => true,
                b'\n' | b'\r' => false,
                _ => is_comment,
            };
            is_comment || is_blank(**byte)
        };
        self.at += self.rest().iter().take_while(is_skipped).count();
    }

    /// Skips a string up to its closing parenthesis. Inner parentheses are in pairs.
    fn skip_string(&mut self) {
        let mut depth = 1;
        while let Some(byte) = self.bytes.get(self.at).filter(|_| depth > 0) {
            match byte {
                b'\\' => self.at += 1,
                b'(' => depth += 1,
                b')' => depth -= 1,
                _ => {}
            }
            self.at += 1;
        }
        self.at = self.at.min(self.bytes.len());
    }
}

fn unescaped(name: &[u8]) -> Cow<'_, [u8]> {
    if !name.contains(&b'#') {
        return Cow::Borrowed(name);
    }
    let (mut plain, mut rest) = (Vec::with_capacity(name.len()), name);
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).filter(|_| *first == b'#').and_then(|code| str::from_utf8(code).ok());
        let escaped = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        plain.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    Cow::Owned(plain)
}
