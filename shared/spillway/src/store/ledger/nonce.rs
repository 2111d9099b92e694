//! Nonces: the mark of a write that can be sent twice and takes effect once.
//!
//! `ADD` is not idempotent. So a write sets a nonce, and its condition is that the item does not
//! have this nonce yet. If only the reply is lost and the write is sent again, the second attempt
//! is refused, and the old item that comes with the refusal has the nonce.
//!
//! The nonce of the next write replaces it. A process sends the next write of the same kind to an
//! item only after this one has ended. So a reservation takes effect twice only if all of this
//! happens: the connection breaks after the store has read the write and before the reply arrives,
//! another process reserves on the same item before the second attempt, and that attempt still
//! finds room. The account is then charged once too often. No limit is exceeded, and the slot and
//! the minute's windows give the surplus back; the day and the month keep it.
//!
//! A settlement that took effect twice would give back too much. So it is sent again only if its
//! connection was dead before, which means that the store has not read it.

use std::collections::HashMap;

use aws_sdk_dynamodb::{primitives::Blob, types::AttributeValue};

use super::expression::Compiled;
use crate::store::StoreError;

/// Attribute that holds a nonce. Writes that one process sends to an item concurrently have
/// different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum NonceAttribute {
    /// Of writes that add: reservations, answers of a history, refusals.
    Added,
    /// Of settlements.
    Settled,
}

/// A random number, used for one write and its repetitions.
#[derive(Debug, Clone)]
pub(in crate::store) struct Nonce {
    attribute: &'static str,
    value: AttributeValue,
}

impl Nonce {
    /// Creates a nonce.
    ///
    /// # Errors
    /// Returns an error if the system cannot generate random bytes.
    pub(in crate::store) fn new(attribute: NonceAttribute) -> Result<Self, StoreError> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes)
            .map_err(|error| StoreError::Unavailable(format!("the system cannot generate random bytes: {error}")))?;
        let attribute = match attribute {
            NonceAttribute::Added => "n",
            NonceAttribute::Settled => "ns",
        };
        Ok(Self { attribute, value: AttributeValue::B(Blob::new(bytes)) })
    }

    /// Makes `write` set this nonce, on the condition that the item does not have it.
    pub(super) fn mark(&self, write: &mut Compiled) {
        let Self { attribute, value } = self;
        match write.update.strip_prefix("SET ") {
            Some(sets) => write.update = format!("SET {attribute} = :n, {sets}"),
            None => write.update = format!("SET {attribute} = :n {}", write.update),
        }
        let is_new = format!("(attribute_not_exists({attribute}) OR {attribute} <> :n)");
        write.condition = Some(match &write.condition {
            Some(condition) => format!("{is_new} AND {condition}"),
            None => is_new,
        });
        write.values.insert(":n".to_owned(), value.clone());
    }

    /// Whether `item` has this nonce, so that the write has taken effect.
    pub(super) fn is_in(&self, item: Option<&HashMap<String, AttributeValue>>) -> bool {
        item.and_then(|item| item.get(self.attribute)) == Some(&self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        quota::{Attribute, Condition, Update, Write},
        store::ledger::compile,
    };

    fn marked(write: &Write, attribute: NonceAttribute) -> (String, String) {
        let mut compiled = compile(write);
        Nonce::new(attribute).expect("random bytes").mark(&mut compiled);
        assert!(compiled.values.contains_key(":n"));
        (compiled.update, compiled.condition.expect("a condition"))
    }

    #[test]
    fn a_marked_write_has_one_set_clause_and_all_conditions() {
        let conditions = vec![Condition::AtLeast(Attribute::Slot(36), 1)];
        let adds = Update::Add(Attribute::InFlight, -1);
        let sets = Update::Set(Attribute::Version, 7);
        let write = Write { conditions, updates: vec![sets, adds] };
        let (update, condition) = marked(&write, NonceAttribute::Added);
        assert_eq!(update, "SET n = :n, v = :1 ADD c :2");
        assert_eq!(condition, "(attribute_not_exists(n) OR n <> :n) AND i10 >= :0");
        let (update, condition) =
            marked(&Write { conditions: Vec::new(), updates: vec![adds] }, NonceAttribute::Settled);
        assert_eq!(update, "SET ns = :n ADD c :0");
        assert_eq!(condition, "(attribute_not_exists(ns) OR ns <> :n)");
    }

    #[test]
    fn a_nonce_is_no_counter() {
        assert_eq!((Attribute::parse("n"), Attribute::parse("ns")), (None, None));
    }
}
