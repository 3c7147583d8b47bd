//! Coins: what an account holds, and what one movement moves.

use std::num::NonZeroU64;

/// What every new account starts with.
pub const STARTING_COINS: Amount = Amount(NonZeroU64::new(1000).unwrap());

/// The coins an account holds: 0 to `i64::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Coins(i64);

/// The coins one movement moves: 1 to `i64::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(NonZeroU64);

impl Coins {
    /// No coins at all.
    pub const ZERO: Coins = Coins(0);

    /// A holding of `coins`; `None` if that is negative.
    pub fn new(coins: i64) -> Option<Coins> {
        (coins >= 0).then_some(Coins(coins))
    }

    /// The number of coins, never negative.
    pub fn get(self) -> i64 {
        self.0
    }

    /// What is left after `amount` is taken away; `None` if that is more than is there.
    pub fn minus(self, amount: Amount) -> Option<Coins> {
        self.0.checked_sub(amount.get()).and_then(Coins::new)
    }

    /// What is there after `amount` is added; `None` past `i64::MAX`.
    pub fn plus(self, amount: Amount) -> Option<Coins> {
        self.0.checked_add(amount.get()).map(Coins)
    }
}

impl Amount {
    /// An amount of `coins`; `None` for zero or less.
    pub fn new(coins: i64) -> Option<Amount> {
        u64::try_from(coins).ok().and_then(NonZeroU64::new).map(Amount)
    }

    /// The number of coins, at least 1.
    pub fn get(self) -> i64 {
        self.0.get().cast_signed()
    }
}

impl From<Amount> for Coins {
    fn from(amount: Amount) -> Coins {
        Coins(amount.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_at_least_one_coin() {
        for (coins, expected) in
            [(i64::MIN, None), (-1, None), (0, None), (1, Some(1)), (i64::MAX, Some(i64::MAX))]
        {
            assert_eq!(Amount::new(coins).map(Amount::get), expected, "{coins}");
        }
    }

    #[test]
    fn a_holding_neither_sinks_below_zero_nor_wraps() {
        let one = Amount::new(1).unwrap();
        assert_eq!(Coins::ZERO.minus(one), None);
        assert_eq!(Coins::new(1).unwrap().minus(one), Some(Coins::ZERO));
        assert_eq!(Coins::new(i64::MAX).unwrap().plus(one), None);
        assert_eq!(Coins::new(-1), None);
    }
}
