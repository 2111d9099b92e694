//! The closed set of conditions and updates for admission, and their execution in memory.

use std::collections::BTreeMap;

use super::{Limit, Period};

/// Name of a number in a ledger item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribute {
    /// Version of the last writer's limits.
    Version,
    /// Requests in flight: the sum of all slots.
    InFlight,
    /// Requests in flight whose reservations expire in this slot epoch.
    Slot(u64),
    /// Requests charged in the window that starts at this epoch.
    Requests(u64),
    /// Quota tokens charged in the window that starts at this epoch.
    Tokens(u64),
    /// Quota tokens charged in the window of five minutes that starts at this epoch of
    /// [`CARRY_EPOCH`](super::CARRY_EPOCH), if unused tokens carry over.
    CarriedTokens(u64),
    /// Quota tokens charged on this UTC day, counted from 1970.
    Day(u64),
    /// Micro-USD charged in this UTC month, counted from January of year 0.
    Month(u64),
    /// Unreserved tokens of requests in flight that were admitted in the two minutes from this
    /// minute on, counted from 1970.
    Unreserved(u64),
    /// Lifetime total of requests settled with known usage.
    SettledRequests,
    /// Lifetime total of settled input tokens, including cached tokens.
    SettledInput,
    /// Lifetime total of settled output tokens.
    SettledOutput,
    /// Lifetime total of settled micro-USD.
    SettledCost,
    /// Lifetime total of requested output tokens that were not reserved, because recent answers
    /// were shorter.
    Regained,
    /// In a history: answers of a day whose length falls into a bucket, as `day × 64 + bucket`.
    Answers(u64),
    /// In a history: estimated input tokens of this UTC day.
    EstimatedInput(u64),
    /// In a history: input tokens of the same requests as the model counted them.
    MeasuredInput(u64),
    /// In a refusal log: number of refusals by this limit, given by its number.
    Refusals(u64),
    /// In a refusal log: time of the last refusal by this limit, in milliseconds since 1970.
    RefusedAt(u64),
    /// The last outage of a pool, given by the pool's number.
    Outage(u64),
    /// In an allowance: what the tenant holds at most.
    Held,
    /// In an allowance: time when the last count or minute began, in milliseconds since 1970.
    CountedAt,
}

impl Attribute {
    /// Returns the name in the item. It is short, because names count towards the item's size.
    pub fn name(self) -> String {
        let mut name = String::new();
        self.push_name(&mut name);
        name
    }

    /// Appends the name in the item to `text`.
    pub fn push_name(self, text: &mut String) {
        match self {
            Self::Version => text.push('v'),
            Self::InFlight => text.push('c'),
            Self::Slot(epoch) => push_base36(text, 'i', epoch),
            Self::Requests(epoch) => push_base36(text, 'r', epoch),
            Self::Tokens(epoch) => push_base36(text, 't', epoch),
            Self::CarriedTokens(epoch) => push_base36(text, 'b', epoch),
            Self::Day(day) => push_base36(text, 'd', day),
            Self::Month(month) => push_base36(text, 'm', month),
            Self::Unreserved(span) => push_base36(text, 'u', span),
            Self::SettledRequests => text.push_str("sr"),
            Self::SettledInput => text.push_str("si"),
            Self::SettledOutput => text.push_str("so"),
            Self::SettledCost => text.push_str("sc"),
            Self::Regained => text.push_str("sg"),
            Self::Answers(bucket) => push_base36(text, 'o', bucket),
            Self::EstimatedInput(day) => push_base36(text, 'e', day),
            Self::MeasuredInput(day) => push_base36(text, 'a', day),
            Self::Refusals(limit) => push_base36(text, 'x', limit),
            Self::RefusedAt(limit) => push_base36(text, 'y', limit),
            Self::Outage(pool) => push_base36(text, 'w', pool),
            Self::Held => text.push('h'),
            Self::CountedAt => text.push('k'),
        }
    }

    /// Whether its name consists of a letter and an index, such as a date.
    pub fn has_index(self) -> bool {
        match self {
            Self::Version | Self::InFlight | Self::Regained | Self::Held | Self::CountedAt => false,
            Self::SettledRequests | Self::SettledInput | Self::SettledOutput | Self::SettledCost => false,
            Self::Slot(_) | Self::Requests(_) | Self::Tokens(_) | Self::CarriedTokens(_) => true,
            Self::Day(_) | Self::Month(_) => true,
            Self::Unreserved(_) | Self::Answers(_) | Self::EstimatedInput(_) | Self::MeasuredInput(_) => true,
            Self::Refusals(_) | Self::RefusedAt(_) | Self::Outage(_) => true,
        }
    }

    /// Returns the limit and the window whose charges it counts; `None` if it counts no charges of
    /// a limit.
    pub fn window(self) -> Option<(Limit, u64)> {
        match self {
            Self::Requests(start) => Some((Limit::RequestsPerMinute, start)),
            Self::Tokens(start) | Self::CarriedTokens(start) => Some((Limit::TokensPerMinute, start)),
            Self::Day(day) => Some((Limit::TokensPerDay, day)),
            Self::Month(month) => Some((Limit::MicrousdPerMonth, month)),
            _ => None,
        }
    }

    /// Returns the period and the window whose charges it counts; `None` if it counts no charges of
    /// a limit.
    pub(super) fn period(self) -> Option<(Period, u64)> {
        let (limit, window) = self.window()?;
        Some((limit.windows_period(matches!(self, Self::CarriedTokens(_)))?, window))
    }

    /// Parses a name; `None` if it is not the name of an attribute.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "v" => return Some(Self::Version),
            "c" => return Some(Self::InFlight),
            "h" => return Some(Self::Held),
            "k" => return Some(Self::CountedAt),
            "sr" => return Some(Self::SettledRequests),
            "si" => return Some(Self::SettledInput),
            "so" => return Some(Self::SettledOutput),
            "sc" => return Some(Self::SettledCost),
            "sg" => return Some(Self::Regained),
            _ => {}
        }
        let mut letters = name.chars();
        let kind = letters.next()?;
        // `from_str_radix` alone would accept a sign and capitals.
        let digits =
            Some(letters.as_str()).filter(|digits| digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'z')))?;
        let index = u64::from_str_radix(digits, 36).ok()?;
        match kind {
            'i' => Some(Self::Slot(index)),
            'r' => Some(Self::Requests(index)),
            't' => Some(Self::Tokens(index)),
            'b' => Some(Self::CarriedTokens(index)),
            'd' => Some(Self::Day(index)),
            'm' => Some(Self::Month(index)),
            'u' => Some(Self::Unreserved(index)),
            'o' => Some(Self::Answers(index)),
            'e' => Some(Self::EstimatedInput(index)),
            'a' => Some(Self::MeasuredInput(index)),
            'x' => Some(Self::Refusals(index)),
            'y' => Some(Self::RefusedAt(index)),
            'w' => Some(Self::Outage(index)),
            _ => None,
        }
    }
}

/// Appends `kind`, and `index` in base 36. 13 digits hold every `u64`.
fn push_base36(text: &mut String, kind: char, mut index: u64) {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut digits = [b'0'; 13];
    let mut first = digits.len();
    while first > 0 && (index > 0 || first == digits.len()) {
        first -= 1;
        digits[first] = DIGITS[(index % 36) as usize];
        index /= 36;
    }
    text.push(kind);
    text.push_str(std::str::from_utf8(&digits[first..]).unwrap_or_default());
}

/// A condition on the old item. An absent attribute counts as 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Absent, or at most this.
    AtMost(Attribute, u64),
    /// Present and at least this.
    AtLeast(Attribute, u64),
    /// Present and exactly this.
    Equals(Attribute, u64),
}

impl Condition {
    /// Returns the attribute that it checks.
    pub fn attribute(&self) -> Attribute {
        match *self {
            Self::AtMost(attribute, _) | Self::AtLeast(attribute, _) | Self::Equals(attribute, _) => attribute,
        }
    }

    /// Returns whether it holds for an attribute that is present with this value.
    pub(super) fn holds_for(&self, value: i128) -> bool {
        match *self {
            Self::AtMost(_, bound) => value <= i128::from(bound),
            Self::AtLeast(_, bound) => value >= i128::from(bound),
            Self::Equals(_, bound) => value == i128::from(bound),
        }
    }

    fn holds(&self, value: Option<i64>) -> bool {
        match value {
            Some(value) => self.holds_for(i128::from(value)),
            None => matches!(self, Self::AtMost(..)),
        }
    }
}

/// A change of the item. Every right-hand side reads the old item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// Add to the attribute. An absent attribute starts at 0.
    Add(Attribute, i64),
    /// Replace the attribute.
    Set(Attribute, u64),
    /// Remove the attribute.
    Remove(Attribute),
}

impl Update {
    /// Returns the attribute that it changes.
    pub fn attribute(&self) -> Attribute {
        match *self {
            Self::Add(attribute, _) | Self::Set(attribute, _) | Self::Remove(attribute) => attribute,
        }
    }
}

/// One conditional write. If all conditions hold, all updates happen; otherwise none does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Write {
    /// Conditions on the old item.
    pub conditions: Vec<Condition>,
    /// Updates, at most one for each attribute.
    pub updates: Vec<Update>,
}

/// Numbers of one ledger item.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image(BTreeMap<Attribute, i64>);

impl Image {
    /// Returns the value of an attribute; 0 if it is absent or negative.
    pub fn get(&self, attribute: Attribute) -> u64 {
        self.0.get(&attribute).map_or(0, |value| u64::try_from(*value).unwrap_or(0))
    }

    /// Returns all attributes with their raw values.
    pub fn iter(&self) -> impl Iterator<Item = (Attribute, i64)> + '_ {
        self.0.iter().map(|(attribute, value)| (*attribute, *value))
    }

    /// Returns whether all conditions of `write` hold.
    pub fn admits(&self, write: &Write) -> bool {
        write.conditions.iter().all(|condition| condition.holds(self.0.get(&condition.attribute()).copied()))
    }

    /// Runs `write` on this image. Returns false and changes nothing if a condition does not hold.
    pub fn apply(&mut self, write: &Write) -> bool {
        if !self.admits(write) {
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
        fn every_name_parses_back(index in 0u64..u64::MAX / 2) {
            for attribute in [
                Attribute::Slot(index),
                Attribute::Requests(index),
                Attribute::Tokens(index),
                Attribute::CarriedTokens(index),
                Attribute::Day(index),
                Attribute::Month(index),
                Attribute::Unreserved(index),
                Attribute::Answers(index),
                Attribute::EstimatedInput(index),
                Attribute::MeasuredInput(index),
                Attribute::Refusals(index),
                Attribute::RefusedAt(index),
                Attribute::Outage(index),
            ] {
                prop_assert_eq!(Attribute::parse(&attribute.name()), Some(attribute));
            }
        }
    }

    #[test]
    fn foreign_names_are_not_parsed() {
        for name in ["", "pk", "z1", "r", "r-1", "r+1", "t 1"] {
            assert_eq!(Attribute::parse(name), None, "{name}");
        }
    }
}
