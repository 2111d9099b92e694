//! The closed set of conditions and updates that admission is made of, and its executor in memory.

use std::collections::BTreeMap;

/// One number of a ledger item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribute {
    /// Version of the limits that the last writer knew.
    Version,
    /// Requests in flight: the sum of all slots.
    InFlight,
    /// Requests in flight whose reservations expire in this slot epoch.
    Slot(u64),
    /// Requests charged in the window that starts at this epoch.
    Requests(u64),
    /// Quota tokens charged in the window that starts at this epoch.
    Tokens(u64),
    /// Quota tokens charged on this UTC day, counted from 1970.
    Day(u64),
    /// Micro-USD charged in this UTC month, counted from January of year 0.
    Month(u64),
    /// Requests settled with known usage, ever.
    SettledRequests,
    /// Input tokens settled, ever, cached ones included.
    SettledInput,
    /// Output tokens settled, ever.
    SettledOutput,
    /// Micro-USD settled, ever.
    SettledCost,
}

impl Attribute {
    /// The attribute's name in the item: short, because names count towards the item's size.
    pub fn name(self) -> String {
        match self {
            Self::Version => "v".into(),
            Self::InFlight => "c".into(),
            Self::Slot(epoch) => base36('i', epoch),
            Self::Requests(epoch) => base36('r', epoch),
            Self::Tokens(epoch) => base36('t', epoch),
            Self::Day(day) => base36('d', day),
            Self::Month(month) => base36('m', month),
            Self::SettledRequests => "sr".into(),
            Self::SettledInput => "si".into(),
            Self::SettledOutput => "so".into(),
            Self::SettledCost => "sc".into(),
        }
    }

    /// Reads a name back; `None` for names that are not ours.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "v" => return Some(Self::Version),
            "c" => return Some(Self::InFlight),
            "sr" => return Some(Self::SettledRequests),
            "si" => return Some(Self::SettledInput),
            "so" => return Some(Self::SettledOutput),
            "sc" => return Some(Self::SettledCost),
            _ => {}
        }
        let mut letters = name.chars();
        let kind = letters.next()?;
        // `from_str_radix` alone would take a sign and capitals.
        let digits =
            Some(letters.as_str()).filter(|digits| digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'z')))?;
        let index = u64::from_str_radix(digits, 36).ok()?;
        match kind {
            'i' => Some(Self::Slot(index)),
            'r' => Some(Self::Requests(index)),
            't' => Some(Self::Tokens(index)),
            'd' => Some(Self::Day(index)),
            'm' => Some(Self::Month(index)),
            _ => None,
        }
    }
}

fn base36(kind: char, mut index: u64) -> String {
    let mut digits = Vec::with_capacity(8);
    loop {
        let digit = u32::try_from(index % 36).unwrap_or(0);
        digits.push(char::from_digit(digit, 36).unwrap_or('0'));
        index /= 36;
        if index == 0 {
            break;
        }
    }
    digits.push(kind);
    digits.iter().rev().collect()
}

/// What must hold of the old item. An absent attribute is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Absent, or at most this.
    AtMost(Attribute, u64),
    /// Present and at least this.
    AtLeast(Attribute, u64),
    /// Present and exactly this.
    Equals(Attribute, u64),
}

/// How the item changes. Every right-hand side reads the old item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// Add to the attribute, which starts at 0.
    Add(Attribute, i64),
    /// Replace the attribute.
    Set(Attribute, u64),
    /// Remove the attribute.
    Remove(Attribute),
}

/// One conditional write: all conditions hold and all updates happen, or nothing does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Write {
    /// Conditions on the old item.
    pub conditions: Vec<Condition>,
    /// Updates, at most one for each attribute.
    pub updates: Vec<Update>,
}

/// The numbers of one ledger item.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image(BTreeMap<Attribute, i64>);

impl Image {
    /// The attribute's value; 0 when absent or negative.
    pub fn get(&self, attribute: Attribute) -> u64 {
        self.0.get(&attribute).map_or(0, |value| u64::try_from(*value).unwrap_or(0))
    }

    /// All attributes with their raw values.
    pub fn iter(&self) -> impl Iterator<Item = (Attribute, i64)> + '_ {
        self.0.iter().map(|(attribute, value)| (*attribute, *value))
    }

    /// Runs `write` on this image; false, and no change, when a condition does not hold.
    pub fn apply(&mut self, write: &Write) -> bool {
        if !write.conditions.iter().all(|condition| self.holds(*condition)) {
            return false;
        }
        for update in &write.updates {
            match *update {
                Update::Add(attribute, by) => *self.0.entry(attribute).or_insert(0) += by,
                Update::Set(attribute, to) => {
                    self.0.insert(attribute, i64::try_from(to).unwrap_or(i64::MAX));
                }
                Update::Remove(attribute) => {
                    self.0.remove(&attribute);
                }
            }
        }
        true
    }

    fn holds(&self, condition: Condition) -> bool {
        let value = |attribute| self.0.get(&attribute).copied();
        match condition {
            Condition::AtMost(attribute, bound) => value(attribute).is_none_or(|v| i128::from(v) <= i128::from(bound)),
            Condition::AtLeast(attribute, bound) => {
                value(attribute).is_some_and(|v| i128::from(v) >= i128::from(bound))
            }
            Condition::Equals(attribute, bound) => value(attribute).is_some_and(|v| i128::from(v) == i128::from(bound)),
        }
    }
}

impl FromIterator<(Attribute, i64)> for Image {
    fn from_iter<I: IntoIterator<Item = (Attribute, i64)>>(attributes: I) -> Self {
        Self(attributes.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_name_reads_back(index in 0u64..u64::MAX / 2) {
            for attribute in [
                Attribute::Slot(index),
                Attribute::Requests(index),
                Attribute::Tokens(index),
                Attribute::Day(index),
                Attribute::Month(index),
            ] {
                prop_assert_eq!(Attribute::parse(&attribute.name()), Some(attribute));
            }
        }
    }

    #[test]
    fn foreign_names_are_not_ours() {
        for name in ["", "pk", "x1", "r", "r-1", "r+1", "t 1"] {
            assert_eq!(Attribute::parse(name), None, "{name}");
        }
    }
}
