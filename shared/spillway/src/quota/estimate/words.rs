//! Words, and the languages of the text around them.

use super::feature::{Counts, Feature};

/// Words that are frequent in English and rare in other languages, in alphabetical order.
const ENGLISH: [&str; 24] = [
    "and", "are", "be", "by", "can", "for", "from", "has", "have", "if", "is", "it", "not", "of", "or", "that", "the",
    "this", "to", "was", "when", "which", "with", "you",
];

/// Frequent words of German, Spanish, French, Italian and Portuguese.
const WESTERN: [&str; 51] = [
    "auf", "che", "con", "da", "dans", "das", "de", "del", "della", "den", "der", "des", "di", "die", "du", "ein",
    "eine", "el", "em", "en", "est", "et", "il", "ist", "la", "las", "le", "les", "los", "mit", "nicht", "non", "os",
    "para", "per", "por", "pour", "que", "se", "sich", "sur", "um", "uma", "un", "una", "und", "une", "von", "vous",
    "werden", "zu",
];

/// Frequent words of Russian.
const RUSSIAN: [&str; 16] =
    ["а", "был", "быть", "все", "для", "его", "если", "и", "или", "их", "как", "не", "он", "что", "чтобы", "это"];

/// Number of words in a window. Running text is judged in windows, so that one language does not
/// hide another.
const WINDOW_WORDS: u64 = 32;

/// Number of letters that a frequent word attributes to its language, in the text around it.
const ATTRIBUTED_LETTERS: u64 = 30;

/// The same number for Russian, which has fewer short words.
const ATTRIBUTED_CYRILLIC_LETTERS: u64 = 60;

/// Running text in one alphabet whose language has not been judged yet.
#[derive(Debug, Default)]
struct Window {
    words: u64,
    letters: u64,
    /// Frequent words of the alphabet's main language, which is English or Russian.
    main: u64,
    /// Frequent words of other known languages.
    known: u64,
}

impl Window {
    /// Adds a word. Returns whether the window is full.
    fn take(&mut self, letters: u64, is_main: bool, is_known: bool) -> bool {
        self.letters += letters;
        self.main += u64::from(is_main);
        self.known += u64::from(is_known);
        self.words += 1;
        self.words == WINDOW_WORDS
    }
}

/// Context of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WordContext {
    /// Between spaces and the punctuation of running text.
    Prose,
    /// Beside other signs, or inside a name in camel case.
    Code,
}

/// Counts words and judges their languages.
#[derive(Debug, Default)]
pub struct Words {
    latin: Window,
    cyrillic: Window,
}

impl Words {
    /// Counts one Latin word, or one part of a word in camel case.
    pub fn latin(&mut self, word: &str, context: WordContext, counts: &mut Counts) {
        let letters = word.chars().count() as u64;
        let is_english = ENGLISH.binary_search(&word).is_ok();
        if letters > 1 && word.bytes().all(|letter| letter.is_ascii_uppercase()) {
            counts[Feature::CapitalsWord as usize] += 1;
            counts[Feature::CapitalsLetter as usize] += letters;
            return;
        }
        match context {
            _ if !word.is_ascii() => add_accented(word, letters, counts),
            WordContext::Prose if is_english => counts[Feature::EnglishWord as usize] += 1,
            WordContext::Prose => add_word(PROSE, letters, counts),
            WordContext::Code => add_word(CODE, letters, counts),
        }
        counts[Feature::Capitalized as usize] += u64::from(word.starts_with(char::is_uppercase));
        let is_western = WESTERN.binary_search(&word).is_ok();
        if context == WordContext::Prose && self.latin.take(letters, is_english, is_western) {
            self.judge_latin(counts);
        }
    }

    /// Counts one Cyrillic word with this number of letters.
    pub fn cyrillic(&mut self, word: &str, letters: u64, counts: &mut Counts) {
        if self.cyrillic.take(letters, RUSSIAN.binary_search(&word).is_ok(), false) {
            self.judge_cyrillic(counts);
        }
    }

    /// Judges the language of the last words.
    pub fn finish(mut self, counts: &mut Counts) {
        self.judge_latin(counts);
        self.judge_cyrillic(counts);
    }

    fn judge_latin(&mut self, counts: &mut Counts) {
        let window = std::mem::take(&mut self.latin);
        let foreign = window.letters.saturating_sub(window.main * ATTRIBUTED_LETTERS);
        let western = foreign.min(window.known * ATTRIBUTED_LETTERS);
        counts[Feature::WesternProseLetter as usize] += western;
        counts[Feature::OtherProseLetter as usize] += foreign - western;
    }

    fn judge_cyrillic(&mut self, counts: &mut Counts) {
        let window = std::mem::take(&mut self.cyrillic);
        let not_russian = window.letters.saturating_sub(window.main * ATTRIBUTED_CYRILLIC_LETTERS);
        counts[Feature::OtherCyrillicLetter as usize] += not_russian;
    }
}

const PROSE: [Feature; 3] = [Feature::ProseWord, Feature::ProseLetterAfter4, Feature::ProseLetterAfter7];
const CODE: [Feature; 3] = [Feature::CodeWord, Feature::CodeLetterAfter4, Feature::CodeLetterAfter7];

fn add_word([word, letter_after_4, letter_after_7]: [Feature; 3], letters: u64, counts: &mut Counts) {
    counts[word as usize] += 1;
    counts[letter_after_4 as usize] += letters.saturating_sub(4);
    counts[letter_after_7 as usize] += letters.saturating_sub(7);
}

fn add_accented(word: &str, letters: u64, counts: &mut Counts) {
    let western = word.chars().filter(|letter| matches!(letter, '\u{80}'..='\u{ff}')).count() as u64;
    let extended = word.chars().filter(|letter| *letter > '\u{ff}').count() as u64;
    counts[Feature::AccentedWord as usize] += 1;
    counts[Feature::AccentedWordLetterAfter4 as usize] += letters.saturating_sub(4);
    counts[Feature::WesternLetter as usize] += western;
    counts[Feature::ExtendedLetter as usize] += extended;
}
