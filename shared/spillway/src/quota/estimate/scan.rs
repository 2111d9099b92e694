//! Counts the features of a text in one pass.

use super::{
    feature::{Counts, Feature},
    words::{WordContext, Words},
};

/// Counts the features of `text`.
pub fn features(text: &str) -> Counts {
    let mut scan = Scan { counts: [0; Feature::COUNT], words: Words::default(), before: '\n', random: None };
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        rest = scan.run(first, rest);
    }
    scan.words.finish(&mut scan.counts);
    scan.counts
}

struct Scan {
    counts: Counts,
    words: Words,
    /// Character before the current run.
    before: char,
    /// Feature of that run if it is random text.
    random: Option<Feature>,
}

/// Class of characters that form a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CharClass {
    Latin,
    Digit,
    LineBreak,
    Space,
    Tab,
    Sign,
    Cyrillic,
    Arabic,
    Han,
    /// Characters that are counted one by one.
    Single,
}

impl Scan {
    /// Counts the run at the beginning of `rest`, and returns the text after it.
    fn run<'a>(&mut self, first: char, rest: &'a str) -> &'a str {
        let random = match self.random {
            Some(feature) if is_base64(first) => Some((feature, base64_bytes(rest))),
            None if self.before.is_ascii_alphanumeric() => None,
            _ => random_prefix(rest),
        };
        let class = class(first);
        let (run, tail) = rest.split_at(random.map_or_else(|| run_bytes(class, first, rest), |(_, bytes)| bytes));
        match random {
            Some((feature, _)) => self.random(feature, run.as_bytes()),
            None => self.count(class, run, tail),
        }
        self.random = random.map(|(feature, _)| feature);
        self.before = run.chars().next_back().unwrap_or(self.before);
        tail
    }

    fn count(&mut self, class: CharClass, run: &str, tail: &str) {
        match class {
            CharClass::Latin => self.latin(run, tail),
            CharClass::Digit => self.digits(run),
            CharClass::LineBreak => {
                self.add(Feature::LineBreak, 1);
                self.add(Feature::EmptyLine, run.len() as u64 - 1);
            }
            CharClass::Space => self.spaces(run, tail),
            CharClass::Tab => self.add(Feature::Tab, run.len() as u64),
            CharClass::Sign => self.signs(run),
            CharClass::Cyrillic => self.cyrillic(run),
            CharClass::Arabic => self.arabic(run),
            CharClass::Han => {
                self.add(Feature::HanRun, 1);
                self.add(Feature::Han, run.chars().count() as u64);
            }
            CharClass::Single => run.chars().for_each(|character| self.single(character)),
        }
    }

    fn add(&mut self, feature: Feature, count: u64) {
        self.counts[feature as usize] += count;
    }

    fn random(&mut self, feature: Feature, block: &[u8]) {
        let repeats = if feature == Feature::Base64Character { repeats(block) as u64 } else { 0 };
        self.add(feature, block.len() as u64 - repeats);
        self.add(Feature::Base64Repeat, repeats);
    }

    fn cyrillic(&mut self, run: &str) {
        let letters = run.chars().count() as u64;
        let rare = run.chars().filter(|letter| !matches!(letter, '\u{400}'..='\u{45f}' | 'Ґ' | 'ґ')).count() as u64;
        self.add(Feature::CyrillicWord, 1);
        self.add(Feature::CyrillicLetter, letters);
        self.add(Feature::CyrillicRareLetter, rare);
        self.words.cyrillic(run, letters, &mut self.counts);
    }

    fn arabic(&mut self, run: &str) {
        let persian = run.chars().filter(|letter| "پچژکگی".contains(*letter)).count() as u64;
        let arabic = run.chars().filter(|letter| matches!(letter, '\u{621}'..='\u{64a}')).count() as u64;
        let letters = run.chars().count() as u64;
        self.add(Feature::ArabicWord, 1);
        self.add(Feature::ArabicLetter, letters);
        self.add(Feature::PersianLetter, persian);
        self.add(Feature::ArabicRareLetter, letters - persian - arabic);
    }

    fn latin(&mut self, run: &str, tail: &str) {
        let begins =
            self.before.is_whitespace() || matches!(self.before, '(' | '"' | '\'' | '“' | '‘' | '«' | '¿' | '-');
        let ends = tail.chars().next().is_none_or(|next| next.is_whitespace() || ",.;:!?)\"'”’»-".contains(next));
        let mut rest = run;
        while !rest.is_empty() {
            let (part, tail) = rest.split_at(part_bytes(rest));
            let is_prose = begins && ends && part.len() == run.len();
            self.words.latin(part, if is_prose { WordContext::Prose } else { WordContext::Code }, &mut self.counts);
            rest = tail;
        }
    }

    fn digits(&mut self, run: &str) {
        let digits = run.len() as u64;
        self.add(Feature::Number, 1);
        self.add(Feature::Digit, digits);
        self.add(Feature::DigitTriple, digits.div_ceil(3));
    }

    fn spaces(&mut self, run: &str, tail: &str) {
        if self.before == '\n' {
            self.add(Feature::Indent, 1);
            self.add(Feature::IndentSpace, run.len() as u64);
        } else if run.len() > 1 {
            self.add(Feature::Gap, 1);
            self.add(Feature::GapSpace, run.len() as u64);
        } else if tail.starts_with(|next: char| next.is_ascii_digit()) {
            self.add(Feature::SpaceBeforeDigit, 1);
        }
    }

    fn signs(&mut self, run: &str) {
        let repeated = repeats(run.as_bytes()) as u64;
        self.add(Feature::Signs, 1);
        self.add(Feature::RepeatedSign, repeated);
        self.add(Feature::OtherSign, run.len() as u64 - 1 - repeated);
    }

    fn single(&mut self, character: char) {
        let feature = match character as u32 {
            0x900..=0x97f => Feature::Devanagari,
            0x980..=0x9ff | 0xb80..=0xc7f => Feature::Indic,
            0xa00..=0xdff => Feature::RareIndic,
            0xe00..=0xe7f => Feature::Thai,
            0xe80..=0xeff | 0x1000..=0x109f | 0x1780..=0x17ff => Feature::SoutheastAsian,
            0x370..=0x3ff => Feature::Greek,
            0x590..=0x5ff => Feature::Hebrew,
            0x3040..=0x309f => Feature::Hiragana,
            0x30a0..=0x30ff => Feature::Katakana,
            0xac00..=0xd7a3 => Feature::Hangul,
            0x3000..=0x303f | 0xff00..=0xffef => Feature::WideSign,
            0xa0..=0xbf | 0x2010..=0x2060 => Feature::Typographic,
            0x2070..=0x2bff => Feature::Symbol,
            0x1_f000..=0x1_faff => Feature::Emoji,
            _ => return self.add(Feature::OtherByte, character.len_utf8() as u64),
        };
        self.add(feature, 1);
    }
}

fn class(character: char) -> CharClass {
    match character {
        'a'..='z' | 'A'..='Z' | 'À'..='Ö' | 'Ø'..='ö' | 'ø'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' => {
            CharClass::Latin
        }
        '0'..='9' => CharClass::Digit,
        '\n' | '\r' => CharClass::LineBreak,
        ' ' => CharClass::Space,
        '\t' => CharClass::Tab,
        '!'..='~' => CharClass::Sign,
        '\u{400}'..='\u{52f}' => CharClass::Cyrillic,
        '\u{610}'..='\u{61a}' | '\u{620}'..='\u{65f}' | '\u{66e}'..='\u{6d3}' | '\u{750}'..='\u{77f}' => {
            CharClass::Arabic
        }
        '\u{4e00}'..='\u{9fff}' => CharClass::Han,
        _ => CharClass::Single,
    }
}

fn run_bytes(run_class: CharClass, first: char, rest: &str) -> usize {
    if run_class == CharClass::Single {
        return first.len_utf8();
    }
    rest.find(|next| class(next) != run_class).unwrap_or(rest.len())
}

/// Returns the length of the first part of a word in camel case, in bytes: up to a capital after a
/// small letter.
fn part_bytes(word: &str) -> usize {
    let mut was_small = false;
    let begins_part = |letter: char| {
        let is_capital = letter.is_uppercase();
        let begins = is_capital && was_small;
        was_small = !is_capital;
        begins
    };
    word.find(begins_part).unwrap_or(word.len())
}

/// Length of the blocks in which unbroken runs are judged. Later text changes the judgement of at
/// most one block.
const RANDOM_BLOCK_BYTES: usize = 64;

/// Minimum length of a run that is judged.
const MIN_RANDOM_BYTES: usize = 16;

/// Returns the length of the random characters at the beginning of `rest`, in bytes, and their
/// feature. In random text, half of all characters differ in kind from their neighbour: small
/// letter, capital, digit or sign. That never happens in words, paths and identifiers. Only random
/// text fills a whole block without a break, so a whole block needs fewer changes; the repeated `A`
/// of binary zeros or capitals alone are also enough.
fn random_prefix(rest: &str) -> Option<(Feature, usize)> {
    let bytes = base64_bytes(rest);
    if bytes < MIN_RANDOM_BYTES {
        return None;
    }
    let block = &rest.as_bytes()[..bytes];
    let count = |is: fn(&u8) -> bool| block.iter().filter(|byte| is(byte)).count();
    let (digits, capitals) = (count(u8::is_ascii_digit), count(u8::is_ascii_uppercase));
    let letters = count(u8::is_ascii_lowercase) + capitals;
    if digits * 3 > bytes && letters > 0 && count(u8::is_ascii_hexdigit) + count(|byte| *byte == b'-') == bytes {
        return Some((Feature::HexCharacter, bytes));
    }
    let changes = block.windows(2).filter(|pair| kind(pair[0]) != kind(pair[1])).count();
    let is_random = if bytes == RANDOM_BLOCK_BYTES {
        capitals * 6 >= bytes && (changes * 5 >= bytes || repeats(block) * 2 >= bytes || capitals == bytes)
    } else {
        changes * 2 >= bytes && digits > 0 && letters * 4 >= bytes
    };
    is_random.then_some((Feature::Base64Character, bytes))
}

/// Returns the length of the unbroken run at the beginning of `rest`, in bytes, up to the length of
/// a block.
fn base64_bytes(rest: &str) -> usize {
    let block = &rest.as_bytes()[..rest.len().min(RANDOM_BLOCK_BYTES)];
    block.iter().position(|byte| !is_base64(char::from(*byte))).unwrap_or(block.len())
}

fn is_base64(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '+' | '/' | '=' | '_' | '-')
}

fn repeats(run: &[u8]) -> usize {
    run.windows(2).filter(|pair| pair[0] == pair[1]).count()
}

fn kind(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => 0,
        b'A'..=b'Z' => 1,
        b'0'..=b'9' => 2,
        _ => 3,
    }
}
