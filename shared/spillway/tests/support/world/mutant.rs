//! Mutants of the ledger: each corrupts the product's writes or the driver's use of them.

use spillway::quota::{
    Attribute, CARRY_EPOCH, Condition, EPOCHS, Image, Policy, Reservation, Settled, Update, Verdict, Write,
};

use super::{EPOCH_MS, Invariant, judge::cap};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A settlement refunds the unused reserve twice.
    DoubleRefund,
    /// A settlement has no condition on its slot.
    UnconditionalSettle,
    /// A settlement also corrects windows that are out of use.
    RefundIntoExpiredWindows,
    /// A settlement without an answer is sent again.
    ResentSettle,
    /// A refused settlement is repeated without its slot, even if the slot cannot have been reaped.
    HastySettleReaped,
    /// A window is charged and not checked.
    DroppedWindow,
    /// A request larger than a cap does not need an empty window, as with a bound below zero.
    NoFloor,
    /// The version of the limits is not checked.
    NoVersion,
    /// A day's total is not checked.
    NoDay,
    /// The bound on unreserved tokens is not checked.
    NoUnreservedBound,
    /// Slots are freed from their beginning on.
    EarlyReap,
    /// Slots are freed at their end, without a margin for clock skew.
    NoReapMargin,
    /// A slot is freed without a condition on its count.
    UnconditionalReap,
    /// A slot is freed, but its requests stay counted.
    ForgetfulReap,
    /// Later requests in a group are not checked.
    BlindBatch,
    /// Every shard holds all of the limits.
    UnslicedShards,
    /// The caps of strict limits are not lowered.
    LaxStrictness,
}

impl Mutant {
    /// All mutants, each with the invariant that it must violate.
    pub const ALL: [(Self, Invariant); 17] = [
        (Self::DoubleRefund, Invariant::WindowWithinCap),
        (Self::UnconditionalSettle, Invariant::NothingNegative),
        (Self::RefundIntoExpiredWindows, Invariant::NothingNegative),
        (Self::ResentSettle, Invariant::LiveWithinLimit),
        (Self::HastySettleReaped, Invariant::WindowWithinCap),
        (Self::DroppedWindow, Invariant::WindowWithinCap),
        (Self::NoFloor, Invariant::WindowWithinCap),
        (Self::NoVersion, Invariant::NoStaleAdmission),
        (Self::NoDay, Invariant::TotalWithinLimit),
        (Self::NoUnreservedBound, Invariant::UseWithinTwiceLimit),
        (Self::EarlyReap, Invariant::LiveWithinLimit),
        (Self::NoReapMargin, Invariant::LiveWithinLimit),
        (Self::UnconditionalReap, Invariant::LiveWithinLimit),
        (Self::ForgetfulReap, Invariant::CountIsSlots),
        (Self::BlindBatch, Invariant::WindowWithinCap),
        (Self::UnslicedShards, Invariant::LiveWithinLimit),
        (Self::LaxStrictness, Invariant::MinuteWithinBound),
    ];

    pub fn spoil_policy(self, mut policy: Policy, whole: &Policy) -> Policy {
        match self {
            Self::UnslicedShards => policy.limits = whole.limits,
            Self::LaxStrictness => policy.burst.is_strict = false,
            _ => {}
        }
        policy
    }

    /// Corrupts the write that makes `reservation`.
    pub fn spoil_reserve(self, mut write: Write, policy: &Policy, reservation: &Reservation) -> Write {
        let epoch = reservation.at.as_ms() / EPOCH_MS;
        let keeps = |condition: &Condition| match (self, *condition) {
            (Self::DroppedWindow, Condition::AtMost(Attribute::Tokens(start), _)) => start != epoch - 3,
            (Self::DroppedWindow, Condition::AtMost(Attribute::CarriedTokens(start), _)) => {
                start != reservation.at / CARRY_EPOCH - 3
            }
            (Self::NoFloor, Condition::AtMost(Attribute::Tokens(start), 0)) => {
                let limit = policy.limits.tokens_per_minute.unwrap_or_default();
                reservation.charge.minute_tokens <= cap(policy, limit, policy.burst.tokens_s, epoch - start + 1)
            }
            (Self::NoVersion, condition) => condition.attribute() != Attribute::Version,
            (Self::NoDay, condition) => !matches!(condition.attribute(), Attribute::Day(_)),
            (Self::NoUnreservedBound, condition) => !matches!(condition.attribute(), Attribute::Unreserved(_)),
            (Self::UnconditionalReap, condition) => !matches!(condition, Condition::Equals(..)),
            _ => true,
        };
        write.conditions.retain(keeps);
        if self == Self::ForgetfulReap
            && let Some(Update::Add(Attribute::InFlight, by)) =
                write.updates.iter_mut().find(|update| update.attribute() == Attribute::InFlight)
        {
            *by = 1;
        }
        write
    }

    /// Corrupts the write that only frees a slot.
    pub fn spoil_free(self, mut write: Write) -> Write {
        if self == Self::UnconditionalReap {
            write.conditions.clear();
        }
        write
    }

    /// Corrupts a settlement.
    pub fn spoil_settle(self, mut write: Write, reservation: &Reservation, settled: &Settled) -> Write {
        match self {
            Self::DoubleRefund => write.updates.iter_mut().for_each(double),
            Self::UnconditionalSettle => write.conditions.clear(),
            Self::RefundIntoExpiredWindows if !reservation.carries_over => {
                let by = signed(settled.charge.minute_tokens) - signed(reservation.charge.minute_tokens);
                let epoch = reservation.at.as_ms() / EPOCH_MS;
                write.updates.retain(|update| !matches!(update.attribute(), Attribute::Tokens(_)));
                let windows = epoch + 1 - EPOCHS..=epoch;
                write.updates.extend(windows.map(|start| Update::Add(Attribute::Tokens(start), by)));
            }
            _ => {}
        }
        write
    }

    /// Corrupts the composition of two writes.
    pub fn spoil_composed(self, composed: Option<Write>, first: &Write, next: &Write) -> Option<Write> {
        if self != Self::BlindBatch {
            return composed;
        }
        let unconditional = Write { conditions: Vec::new(), updates: next.updates.clone() };
        first.then(&unconditional)
    }

    /// Corrupts the verdict on a refused reservation.
    pub fn spoil_verdict(self, verdict: Verdict, image: &Image, now_ms: u64) -> Verdict {
        let after_ms = match self {
            Self::EarlyReap => 0,
            Self::NoReapMargin => 15_000,
            _ => return verdict,
        };
        let is_only_slots = match &verdict {
            Verdict::Refused(refusal) => refusal.limits.iter().all(|refused| refused.limit.name() == "in_flight"),
            _ => false,
        };
        let free = image.iter().find_map(|(attribute, count)| match attribute {
            Attribute::Slot(slot) if count > 0 && slot * 15_000 + after_ms <= now_ms => Some((slot, count)),
            _ => None,
        });
        match free {
            Some((slot, count)) if is_only_slots => Verdict::Reap(slot, u64::try_from(count).expect("above zero")),
            _ => verdict,
        }
    }
}

fn double(update: &mut Update) {
    let Update::Add(attribute, by) = update else { return };
    if attribute.window().is_some() && *by < 0 {
        *by *= 2;
    }
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).expect("a small amount")
}
