//! What is true of any sequence of commands, however it is cut into batches.
//!
//! The model remembers nothing but what happened: what somebody holds is added up anew
//! from all of it each time that it is asked for.

use proptest::collection::vec;
use proptest::prelude::*;

use super::books::NAMES;
use super::*;
use crate::shop::CATALOGUE;

/// Those with an account, those who may open one, and one who never will.
const GRANTS: [(&str, i64); 3] = [("alice", 1000), ("bob", 25), ("carol", i64::MAX - 900)];
const THIRD: usize = 6;

/// One command, as somebody would put it; people are places in [`NAMES`].
#[derive(Clone, Debug)]
struct Step {
    by: usize,
    what: What,
    key: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Open,
    Send { to: usize, amount: i64 },
    Buy { item: &'static str },
    Bad(Refusal),
}

/// From whom, to whom, for which item, how many coins.
type Row = (Option<usize>, Option<usize>, Option<&'static str>, i64);

/// Whose key, what it was used for, how that ended.
type Promise = ((usize, u8), What, Result<(), Refusal>);

#[derive(Default)]
struct Model {
    rows: Vec<Row>,
    promises: Vec<Promise>,
}

impl Model {
    fn new() -> Model {
        let grants = (0..).zip(GRANTS).map(|(who, (_, coins))| (None, Some(who), None, coins));
        Model { rows: grants.collect(), ..Model::default() }
    }

    fn exists(&self, who: usize) -> bool {
        self.rows.iter().any(|(from, to, ..)| from.is_none() && *to == Some(who))
    }

    fn coins(&self, who: usize) -> i128 {
        let each = self.rows.iter().map(|(from, to, _, amount)| {
            let amount = i128::from(*amount);
            (if *to == Some(who) { amount } else { 0 })
                - (if *from == Some(who) { amount } else { 0 })
        });
        each.sum()
    }

    /// What a step comes to, and whether that is an old answer.
    fn take(&mut self, step: &Step) -> (Result<(), Refusal>, bool) {
        if step.what == What::Open {
            if self.exists(step.by) {
                return (Err(Refusal::UsernameTaken), false);
            }
            self.rows.push((None, Some(step.by), None, 1000));
            return (Ok(()), false);
        }
        if !self.exists(step.by) {
            return (Err(Refusal::UnknownAccount), false);
        }
        let name = step.key.map(|key| (step.by, key));
        match self.promises.iter().find(|(promised, ..)| Some(*promised) == name) {
            Some((_, what, outcome)) if *what == step.what => return (*outcome, true),
            Some(_) => return (Err(Refusal::KeyReused), false),
            None => {}
        }
        let outcome = self.try_to(step.by, step.what).map(|row| self.rows.push(row));
        self.promises.extend(name.map(|name| (name, step.what, outcome)));
        (outcome, false)
    }

    /// The row that `what` would leave behind.
    fn try_to(&self, by: usize, what: What) -> Result<Row, Refusal> {
        let (to, item, amount) = match what {
            What::Open => unreachable!("opened before"),
            What::Bad(refusal) => return Err(refusal),
            What::Send { to, amount } if self.exists(to) => (Some(to), None, amount),
            What::Send { .. } => return Err(Refusal::UnknownRecipient),
            What::Buy { item } => match CATALOGUE.iter().find(|(name, _)| *name == item) {
                Some((_, price)) => (None, Some(item), *price),
                None => return Err(Refusal::UnknownItem),
            },
        };
        if to == Some(by) {
            return Err(Refusal::SelfTransfer);
        }
        if self.coins(by) < i128::from(amount) {
            return Err(Refusal::InsufficientCoins);
        }
        if to.is_some_and(|to| self.coins(to) + i128::from(amount) > i128::from(i64::MAX)) {
            return Err(Refusal::RecipientFull);
        }
        Ok((Some(by), to, item, amount))
    }
}

impl Step {
    fn command(&self) -> Command {
        let by = account(self.by);
        let command = match self.what {
            What::Open => opens(NAMES[self.by]),
            What::Send { to, amount } => sends(by, NAMES[to], amount),
            What::Buy { item } => buys(by, item),
            What::Bad(refusal) => is_refused(by, refusal),
        };
        match (self.key, command) {
            (Some(key), Command::Order(order)) => {
                // Short enough to be its own digest.
                let mut digest = [0; 32];
                let text = match self.what {
                    What::Open => unreachable!("not an order"),
                    What::Send { to, amount } => format!("send {to} {amount}"),
                    What::Buy { item } => format!("buy {item}"),
                    What::Bad(refusal) => refusal.code().into(),
                };
                digest[..text.len()].copy_from_slice(text.as_bytes());
                let key = IdempotencyKey::parse(&[b'a' + key]).unwrap();
                Command::Order(Order { key: Some((key, Fingerprint(digest))), ..order })
            }
            (_, command) => command,
        }
    }
}

fn account(who: usize) -> AccountId {
    AccountId(i64::try_from(who).unwrap() + 1)
}

fn step() -> impl Strategy<Value = Step> {
    let amount = prop_oneof![8 => 1..40i64, 4 => 100..1200i64, 1 => Just(i64::MAX)];
    let items = vec!["pen", "cup", "hoody", "pink-hoody", "yacht"];
    let what = prop_oneof![
        1 => Just(What::Open),
        8 => (0..=THIRD, amount).prop_map(|(to, amount)| What::Send { to, amount }),
        6 => prop::sample::select(items).prop_map(|item| What::Buy { item }),
        1 => Just(What::Bad(Refusal::Malformed)),
        1 => Just(What::Bad(Refusal::AmountNotPositive)),
    ];
    let key = prop_oneof![3 => Just(None), 2 => (0..4u8).prop_map(Some)];
    (0..=THIRD, what, key).prop_map(|(by, what, key)| {
        // The one who never opens an account.
        let by = if by == THIRD && what == What::Open { 3 } else { by };
        Step { by, what, key }
    })
}

fn commands(steps: &[Step]) -> Vec<Command> {
    steps.iter().map(Step::command).collect()
}

proptest! {
    #[test]
    fn any_batch_is_answered_as_the_model_would_and_leaves_the_same_books(
        steps in vec(step(), 0..60),
    ) {
        let mut books = Books::of(GRANTS);
        let answers = books.carry_out(&commands(&steps));

        let mut model = Model::new();
        for (step, answer) in steps.iter().zip(&answers) {
            let said = (answer.result.map(|_| ()), answer.replayed);
            prop_assert_eq!(said, model.take(step), "{:?}", step);
        }
        prop_assert_eq!(answers.len(), steps.len());
        for who in 0..NAMES.len() {
            let held = books.balances.get(&account(who)).map(|coins| i128::from(coins.get()));
            prop_assert_eq!(held, model.exists(who).then(|| model.coins(who)));
        }
        for (item, _) in CATALOGUE {
            for who in 0..NAMES.len() {
                let bought = model.rows.iter().filter(|row| row.0 == Some(who) && row.2 == Some(item));
                let owned = books.inventory.get(&(account(who), books.item(item)));
                prop_assert_eq!(owned.copied().unwrap_or(0), i64::try_from(bought.count()).unwrap());
            }
        }
    }

    #[test]
    fn no_coin_is_lost_or_minted_and_the_history_accounts_for_every_one(
        steps in vec(step(), 0..60),
    ) {
        let mut books = Books::of(GRANTS);
        books.carry_out(&commands(&steps));

        let mut by_history: BTreeMap<AccountId, i128> =
            books.grants.iter().map(|(id, grant)| (*id, grant.get().into())).collect();
        let mut bought: BTreeMap<(AccountId, ItemId), i64> = BTreeMap::new();
        let mut spent = 0;
        for entry in &books.history {
            let amount = i128::from(entry.amount.get());
            *by_history.entry(entry.from).or_default() -= amount;
            match entry.to {
                Destination::Account(to) => *by_history.entry(to).or_default() += amount,
                Destination::Item(item) => {
                    *bought.entry((entry.from, item)).or_default() += 1;
                    spent += amount;
                }
            }
        }
        let held: BTreeMap<AccountId, i128> =
            books.balances.iter().map(|(id, coins)| (*id, coins.get().into())).collect();
        let granted: i128 = books.grants.values().map(|grant| i128::from(grant.get())).sum();
        prop_assert!(held.values().all(|coins| *coins >= 0), "{:?}", held);
        prop_assert_eq!(granted, held.values().sum::<i128>() + spent);
        prop_assert_eq!(by_history, held);
        prop_assert_eq!(bought, books.inventory);
    }

    #[test]
    fn however_a_sequence_is_cut_into_batches_it_comes_to_the_same(
        steps in vec((step(), any::<bool>()), 1..60),
    ) {
        let (steps, cuts): (Vec<Step>, Vec<bool>) = steps.into_iter().unzip();
        let commands = commands(&steps);
        let mut at_once = Books::of(GRANTS);
        let expected = at_once.carry_out(&commands);

        let mut in_batches = Books::of(GRANTS);
        let mut answers = Vec::new();
        let mut batch = Vec::new();
        for (command, cut) in commands.into_iter().zip(cuts) {
            batch.push(command);
            if cut {
                answers.extend(in_batches.carry_out(&std::mem::take(&mut batch)));
            }
        }
        answers.extend(in_batches.carry_out(&batch));

        prop_assert_eq!(answers, expected);
        prop_assert_eq!(in_batches, at_once);
    }
}
