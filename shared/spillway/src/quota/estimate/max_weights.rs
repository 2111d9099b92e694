//! Upper bound of the tokens of a text, for money.
//!
//! [`weights`](super::weights) are right for text that people and programs write. A text made to
//! have many tokens, such as random letters or signs, has up to five times as many as they say.

use super::feature::{Counts, Feature};

/// Most that an occurrence of a feature costs in any family of models, in thousandths of a token.
///
/// The weights were fitted by linear programming to the counts of the tokenizers of
/// `tests/tokenizers` on 4,200 random texts: letters of all scripts, signs, digits and blanks, in
/// words of each length and with many separators. A few were raised for further texts, which
/// `tests/tokenizers/adversarial.py` makes. None is below [`weights`](super::weights).
#[rustfmt::skip]
const MAX_WEIGHTS: [u64; Feature::COUNT] = [
    1053, // EnglishWord
    1732, // ProseWord
    35, // ProseLetterAfter4
    307, // ProseLetterAfter7
    3240, // CodeWord
    1090, // CodeLetterAfter4
    315, // CodeLetterAfter7
    676, // Capitalized
    556, // CapitalsWord
    1086, // CapitalsLetter
    289, // AccentedWord
    299, // AccentedWordLetterAfter4
    1726, // WesternLetter
    2992, // ExtendedLetter
    144, // WesternProseLetter
    788, // OtherProseLetter
    857, // Number
    1036, // Digit
    1008, // DigitTriple
    1705, // SpaceBeforeDigit
    1122, // LineBreak
    1051, // EmptyLine
    915, // Indent
    66, // IndentSpace
    2643, // Gap
    59, // GapSpace
    2099, // Tab
    1617, // Signs
    1039, // OtherSign
    899, // RepeatedSign
    1308, // Base64Character
    1014, // Base64Repeat
    1050, // HexCharacter
    1406, // CyrillicWord
    510, // CyrillicLetter
    1009, // OtherCyrillicLetter
    4080, // CyrillicRareLetter
    1448, // ArabicWord
    1133, // ArabicLetter
    1053, // PersianLetter
    2509, // ArabicRareLetter
    2795, // Devanagari
    3082, // Indic
    4160, // RareIndic
    2374, // Thai
    3520, // SoutheastAsian
    3537, // Greek
    2485, // Hebrew
    1524, // HanRun
    2982, // Han
    2067, // Hiragana
    2534, // Katakana
    3204, // Hangul
    3781, // WideSign
    2901, // Typographic
    4557, // Symbol
    4735, // Emoji
    1800, // OtherByte
];

/// Returns the most tokens that a text with these features can have, in thousandths.
pub fn millitokens(counts: &Counts) -> u64 {
    counts.iter().zip(&MAX_WEIGHTS).map(|(count, weight)| count * weight).sum()
}
