//! Features of text that determine its number of tokens.

/// A feature of a text. Each occurrence costs tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// One of the most frequent English words.
    EnglishWord,
    /// Another word of ASCII letters, as in running text.
    ProseWord,
    /// A letter of such a word after the fourth.
    ProseLetterAfter4,
    /// A letter of such a word after the seventh.
    ProseLetterAfter7,
    /// A word of ASCII letters beside signs, as in code: an identifier, or a part of one in camel
    /// case.
    CodeWord,
    /// A letter of such a word after the fourth.
    CodeLetterAfter4,
    /// A letter of such a word after the seventh.
    CodeLetterAfter7,
    /// A word that begins with a capital.
    Capitalized,
    /// A word of capitals.
    CapitalsWord,
    /// A letter of such a word.
    CapitalsLetter,
    /// A Latin word with letters beyond ASCII.
    AccentedWord,
    /// A letter of such a word after the fourth.
    AccentedWordLetterAfter4,
    /// A letter of western Europe beyond ASCII.
    WesternLetter,
    /// Another Latin letter beyond ASCII.
    ExtendedLetter,
    /// A letter of running text in a large language of western Europe.
    WesternProseLetter,
    /// A letter of running text in another language.
    OtherProseLetter,
    /// A run of digits.
    Number,
    /// A digit.
    Digit,
    /// Three digits of a run, or the rest of it.
    DigitTriple,
    /// A single space before a digit.
    SpaceBeforeDigit,
    /// A run of line breaks.
    LineBreak,
    /// A line break of such a run after the first.
    EmptyLine,
    /// The spaces at the beginning of a line.
    Indent,
    /// A space of an indent.
    IndentSpace,
    /// Two or more spaces inside a line.
    Gap,
    /// A space of such a gap.
    GapSpace,
    /// A tab.
    Tab,
    /// A run of ASCII signs.
    Signs,
    /// A sign of such a run that differs from the sign before it.
    OtherSign,
    /// A sign of such a run that repeats the sign before it.
    RepeatedSign,
    /// A character of Base64 or of equally random text.
    Base64Character,
    /// A character of such text that repeats the character before it.
    Base64Repeat,
    /// A character of a hexadecimal number that mixes digits and letters.
    HexCharacter,
    /// A Cyrillic word.
    CyrillicWord,
    /// A Cyrillic letter.
    CyrillicLetter,
    /// A Cyrillic letter of running text in a language other than Russian.
    OtherCyrillicLetter,
    /// A Cyrillic letter that no Slavic language has.
    CyrillicRareLetter,
    /// A word in Arabic script.
    ArabicWord,
    /// A letter in Arabic script.
    ArabicLetter,
    /// A letter that Persian adds.
    PersianLetter,
    /// A vowel sign, or a letter that neither Arabic nor Persian has.
    ArabicRareLetter,
    /// A character of Devanagari.
    Devanagari,
    /// A character of Bengali, Tamil or Telugu.
    Indic,
    /// A character of another script of South Asia.
    RareIndic,
    /// A character of Thai.
    Thai,
    /// A character of Lao, Burmese or Khmer.
    SoutheastAsian,
    /// A Greek letter.
    Greek,
    /// A Hebrew letter.
    Hebrew,
    /// A run of Chinese characters.
    HanRun,
    /// A Chinese character.
    Han,
    /// A character of hiragana.
    Hiragana,
    /// A character of katakana.
    Katakana,
    /// A Korean syllable.
    Hangul,
    /// A sign of Chinese or Japanese, or a full-width letter.
    WideSign,
    /// A quotation mark, dash or other sign beyond ASCII.
    Typographic,
    /// An arrow, box, bullet or mathematical sign.
    Symbol,
    /// An emoji.
    Emoji,
    /// A byte of any other character.
    OtherByte,
}

impl Feature {
    /// Number of features.
    pub const COUNT: usize = Self::OtherByte as usize + 1;
}

/// Number of occurrences of each feature, in the order of [`Feature`].
pub type Counts = [u64; Feature::COUNT];
