//! The ledger: how a batch of commands turns the coins that are there into the coins that
//! will be there.
//!
//! [`execute`] applies commands one after another to a [`Ledger`], the rows that the batch
//! touches as its transaction read them, and says what to answer and what to write. It is
//! a function of its arguments alone, so a replayed batch is simply executed again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{
    AccountId, Amount, BooksId, Coins, Fingerprint, IdempotencyKey, ItemId, ItemName, LogNumber,
    Owner, STARTING_COINS, Username,
};

/// One thing asked of the ledger.
#[derive(Clone, Debug)]
pub enum Command {
    /// Open an account with [`STARTING_COINS`] for somebody who logs in for the first time.
    OpenAccount {
        /// Refused as taken if it has an account by then.
        username: Username,
        /// A PHC string, as `auth::password` makes it.
        password_hash: Arc<str>,
    },
    /// Move the coins of an account that exists.
    Order(Order),
}

impl Command {
    /// The rows that it appends at most, of whatever table: by these a batch is measured. At
    /// least 1.
    pub fn weight(&self) -> usize {
        match self {
            // The user, the balance, the grant.
            Command::OpenAccount { .. } => 3,
            Command::Order(Order { action, key, .. }) => {
                let rows = usize::from(action.is_ok()) + usize::from(key.is_some());
                rows.max(1)
            }
        }
    }
}

/// What somebody who is logged in asks for.
#[derive(Clone, Debug)]
pub struct Order {
    /// Who pays, as the token says; refused unless the books say so too.
    pub by: Owner,
    /// The action, or the refusal that its request met before it got here: a refusal with
    /// an idempotency key is remembered like any other.
    pub action: Result<Action, Refusal>,
    /// Under what to remember the outcome, and of what request; `None`: it is not remembered.
    pub key: Option<(IdempotencyKey, Fingerprint)>,
}

/// The two ways to part with coins.
#[derive(Clone, Debug)]
pub enum Action {
    /// Give coins to another account.
    Transfer {
        /// Whom to; must have an account, and not be the giver.
        to: Username,
        /// Coins, at least 1.
        amount: Amount,
    },
    /// Buy one piece, at the price in the catalogue.
    Purchase {
        /// What to buy; refused if it is not on sale.
        item: ItemName,
    },
}

/// What a command comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// A refusal changed nothing but, with a key, what is remembered.
    pub result: Result<Receipt, Refusal>,
    /// The result was remembered from an earlier request with the same key; nothing moved.
    pub replayed: bool,
}

/// What was done for a command that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// The account was opened, with its starting grant, under this number.
    Opened(AccountId),
    /// The coins left the account that ordered. The number is that of the movement's row; a
    /// key that a release without numbers remembered has none.
    Done(Option<LogNumber>),
}

/// Why a command changes nothing, in the order in which `execute` looks; `Display` is
/// meant for the person who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// An account is to be opened under a name that has one.
    #[error("this username is taken")]
    UsernameTaken,
    /// Whoever orders has no account in these books, or it is another's; not remembered, even
    /// with a key.
    #[error("the account of this token does not exist")]
    UnknownAccount,
    /// The key is remembered, with another fingerprint.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
    /// The body could not be read as a transfer; found before it got here.
    #[error(
        "the body must be JSON like {{\"toUser\": \"bob\", \"amount\": 10}}, amount a whole number"
    )]
    Malformed,
    /// The amount is zero or less; found before it got here.
    #[error("amount must be at least 1")]
    AmountNotPositive,
    /// Nothing on sale has this name, or nothing could have it.
    #[error("no such item; GET /api/merch lists what is on sale")]
    UnknownItem,
    /// Nobody has this name, or nobody could have it.
    #[error("no such recipient")]
    UnknownRecipient,
    /// Giver and recipient are one account, whatever the amount.
    #[error("coins cannot be sent to oneself")]
    SelfTransfer,
    /// The account holds less than the amount or the price.
    #[error("not enough coins")]
    InsufficientCoins,
    /// The recipient would hold more than `i64::MAX` coins.
    #[error("the recipient cannot hold that many coins")]
    RecipientFull,
}

/// The rows that a batch touches, as its transaction read them.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The number of the newest row of the log.
    pub head: LogNumber,
    /// Which books the rows are from.
    pub books: Option<BooksId>,
    /// Names of the accounts that orders come from.
    pub owners: HashMap<AccountId, Username>,
    /// Balances of everybody who orders or is sent coins.
    pub balances: HashMap<AccountId, Coins>,
    /// Accounts of the usernames that the batch mentions, where there is one.
    pub accounts: HashMap<Username, AccountId>,
    /// Fresh account numbers for the newcomers among those usernames.
    pub reserved: HashMap<Username, AccountId>,
    /// Numbers and prices of the items that the batch mentions, where they are on sale.
    pub merch: HashMap<ItemName, (ItemId, Amount)>,
    /// What is remembered of the keys that the batch mentions, unless it is past its 7 days.
    pub keys: HashMap<(AccountId, IdempotencyKey), Remembered>,
}

impl Ledger {
    /// Nothing yet, and room for what so many commands mention.
    pub fn with_room_for(commands: usize) -> Ledger {
        Ledger {
            owners: HashMap::with_capacity(commands),
            // Of who pays and who is paid.
            balances: HashMap::with_capacity(2 * commands),
            accounts: HashMap::with_capacity(commands),
            ..Ledger::default()
        }
    }
}

/// The outcome that an idempotency key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Of the first request with this key; a replay must have the same.
    pub fingerprint: Fingerprint,
    /// What the first request came to; a replay is answered the same. The number is that of
    /// its movement, where it is known.
    pub outcome: Result<Option<LogNumber>, Refusal>,
}

/// What the batch changes; all of it is written, or none.
#[derive(Debug, Default)]
pub struct Changes {
    /// The newest number when the batch was read, and the newest once it is written; the rows
    /// of `opened` and `entries` have the numbers in between, in the order of their commands.
    pub head: (LogNumber, LogNumber),
    /// New accounts, each username once, in the order of their commands.
    pub opened: Vec<Opened>,
    /// New balances, in the order of account numbers: every writer locks rows in the same
    /// order.
    pub balances: BTreeMap<AccountId, Coins>,
    /// Pieces to add to what is owned, at least 1 each.
    pub purchases: BTreeMap<(AccountId, ItemId), i64>,
    /// New history after the starting grants, oldest first.
    pub entries: Vec<Entry>,
    /// New outcomes, each key of an account once.
    pub remembered: Vec<(AccountId, IdempotencyKey, Remembered)>,
}

/// An account to be opened, holding its starting grant.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Reserved for this username; no account has it yet.
    pub id: AccountId,
    /// Without an account when the batch was read.
    pub username: Username,
    /// A PHC string, stored as it is.
    pub password_hash: Arc<str>,
    /// Its first balance and its first row of history, in coins.
    pub grant: Amount,
    /// The number of that row.
    pub number: LogNumber,
}

/// One movement of coins out of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the log.
    pub number: LogNumber,
    /// Who parted with the coins.
    pub from: AccountId,
    /// Never the account they came from.
    pub to: Destination,
    /// Coins; for a purchase, the price on that day.
    pub amount: Amount,
}

/// Where coins go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To another user: a transfer.
    Account(AccountId),
    /// Out of circulation, for one piece of an item: a purchase.
    Item(ItemId),
}

/// Applies `commands` in order to `ledger`: one answer a command, and what to write.
///
/// `ledger` must hold everything that the commands mention and the database has, and a
/// reserved number for every username that is to be opened and has no account.
///
/// ```
/// use merch_store::shop::ledger::{Action, Command, Ledger, Order, Refusal, execute};
/// use merch_store::shop::{AccountId, Amount, BooksId, Coins, ItemId, ItemName, Owner, Username};
///
/// let (alice, books) = (AccountId(1), BooksId(uuid::Uuid::from_u128(1)));
/// let username = Username::parse("alice").unwrap();
/// let (cup, price) = (ItemName::parse("cup").unwrap(), Amount::new(20).unwrap());
/// let ledger = Ledger {
///     books: Some(books),
///     owners: [(alice, username.clone())].into(),
///     balances: [(alice, Coins::new(30).unwrap())].into(),
///     merch: [(cup.clone(), (ItemId(2), price))].into(),
///     ..Ledger::default()
/// };
/// let buy_a_cup = Command::Order(Order {
///     by: Owner { account: alice, username, books },
///     action: Ok(Action::Purchase { item: cup }),
///     key: None,
/// });
///
/// let (answers, changes) = execute(ledger, &[buy_a_cup.clone(), buy_a_cup]);
/// assert!(answers[0].result.is_ok());
/// assert_eq!(answers[1].result, Err(Refusal::InsufficientCoins));
/// assert_eq!(changes.balances[&alice].get(), 10);
/// ```
pub fn execute(mut ledger: Ledger, commands: &[Command]) -> (Vec<Answer>, Changes) {
    let mut changes = Changes { head: (ledger.head, ledger.head), ..Changes::default() };
    let answers = commands
        .iter()
        .map(|command| match command {
            Command::OpenAccount { username, password_hash } => Answer {
                result: open_account(&mut ledger, &mut changes, username, password_hash),
                replayed: false,
            },
            Command::Order(order) => place(&mut ledger, &mut changes, order),
        })
        .collect();
    (answers, changes)
}

fn open_account(
    ledger: &mut Ledger,
    changes: &mut Changes,
    username: &Username,
    password_hash: &Arc<str>,
) -> Result<Receipt, Refusal> {
    if ledger.accounts.contains_key(username) {
        return Err(Refusal::UsernameTaken);
    }
    let id = ledger.reserved[username];
    ledger.accounts.insert(username.clone(), id);
    ledger.owners.insert(id, username.clone());
    ledger.balances.insert(id, STARTING_COINS.into());
    let number = changes.next_number();
    changes.opened.push(Opened {
        id,
        username: username.clone(),
        password_hash: password_hash.clone(),
        grant: STARTING_COINS,
        number,
    });
    Ok(Receipt::Opened(id))
}

fn place(ledger: &mut Ledger, changes: &mut Changes, order: &Order) -> Answer {
    let by = order.by.account;
    let is_owner =
        ledger.books == Some(order.by.books) && ledger.owners.get(&by) == Some(&order.by.username);
    let Some(held) = ledger.balances.get(&by).copied().filter(|_| is_owner) else {
        return Answer { result: Err(Refusal::UnknownAccount), replayed: false };
    };
    let known = order.key.as_ref().and_then(|(key, fingerprint)| {
        let remembered = ledger.keys.get(&(by, key.clone()))?;
        Some((remembered, remembered.fingerprint == *fingerprint))
    });
    match known {
        Some((_, false)) => {
            return Answer { result: Err(Refusal::KeyReused), replayed: false };
        }
        Some((remembered, true)) => {
            return Answer { result: remembered.outcome.map(Receipt::Done), replayed: true };
        }
        None => {}
    }

    let outcome = match &order.action {
        Err(refusal) => Err(*refusal),
        Ok(Action::Purchase { item }) => purchase(ledger, changes, by, held, item),
        Ok(Action::Transfer { to, amount }) => transfer(ledger, changes, by, held, to, *amount),
    };
    let outcome = outcome.map(Some);
    if let Some((key, fingerprint)) = &order.key
        && outcome.err().is_none_or(Refusal::is_remembered)
    {
        let remembered = Remembered { fingerprint: *fingerprint, outcome };
        ledger.keys.insert((by, key.clone()), remembered);
        changes.remembered.push((by, key.clone(), remembered));
    }
    Answer { result: outcome.map(Receipt::Done), replayed: false }
}

fn purchase(
    ledger: &mut Ledger,
    changes: &mut Changes,
    by: AccountId,
    held: Coins,
    item: &ItemName,
) -> Result<LogNumber, Refusal> {
    let &(item, price) = ledger.merch.get(item).ok_or(Refusal::UnknownItem)?;
    let left = held.minus(price).ok_or(Refusal::InsufficientCoins)?;

    set_balance(ledger, changes, by, left);
    *changes.purchases.entry((by, item)).or_default() += 1;
    Ok(changes.enter(by, Destination::Item(item), price))
}

fn transfer(
    ledger: &mut Ledger,
    changes: &mut Changes,
    by: AccountId,
    held: Coins,
    to: &Username,
    amount: Amount,
) -> Result<LogNumber, Refusal> {
    let &to = ledger.accounts.get(to).ok_or(Refusal::UnknownRecipient)?;
    if to == by {
        return Err(Refusal::SelfTransfer);
    }
    let left = held.minus(amount).ok_or(Refusal::InsufficientCoins)?;
    let had = ledger.balances.get(&to).ok_or(Refusal::UnknownRecipient)?;
    let received = had.plus(amount).ok_or(Refusal::RecipientFull)?;

    set_balance(ledger, changes, by, left);
    set_balance(ledger, changes, to, received);
    Ok(changes.enter(by, Destination::Account(to), amount))
}

fn set_balance(ledger: &mut Ledger, changes: &mut Changes, account: AccountId, coins: Coins) {
    ledger.balances.insert(account, coins);
    changes.balances.insert(account, coins);
}

impl Refusal {
    /// Every refusal, in the order of the enum.
    pub const ALL: [Refusal; 10] = [
        Refusal::UsernameTaken,
        Refusal::UnknownAccount,
        Refusal::KeyReused,
        Refusal::Malformed,
        Refusal::AmountNotPositive,
        Refusal::UnknownItem,
        Refusal::UnknownRecipient,
        Refusal::SelfTransfer,
        Refusal::InsufficientCoins,
        Refusal::RecipientFull,
    ];

    /// The name by which machines know it: in answers, metrics and remembered outcomes.
    pub fn code(self) -> &'static str {
        match self {
            Refusal::UsernameTaken => "username_taken",
            Refusal::UnknownAccount => "unknown_account",
            Refusal::KeyReused => "idempotency_key_reused",
            Refusal::Malformed => "invalid_request",
            Refusal::AmountNotPositive => "invalid_amount",
            Refusal::UnknownItem => "unknown_item",
            Refusal::UnknownRecipient => "unknown_recipient",
            Refusal::SelfTransfer => "self_transfer",
            Refusal::InsufficientCoins => "insufficient_coins",
            Refusal::RecipientFull => "recipient_full",
        }
    }

    /// Whether the outcome of a request with an idempotency key may be this one: all but those
    /// that say who is asking, or what of.
    pub fn is_remembered(self) -> bool {
        !matches!(self, Refusal::UsernameTaken | Refusal::UnknownAccount | Refusal::KeyReused)
    }

    /// The refusal whose code this is.
    pub fn from_code(code: &str) -> Option<Refusal> {
        Self::ALL.into_iter().find(|refusal| refusal.code() == code)
    }
}

impl Changes {
    /// Nothing to write.
    pub fn is_empty(&self) -> bool {
        self.opened.is_empty() && self.entries.is_empty() && self.remembered.is_empty()
    }

    fn next_number(&mut self) -> LogNumber {
        self.head.1.0 += 1;
        self.head.1
    }

    fn enter(&mut self, from: AccountId, to: Destination, amount: Amount) -> LogNumber {
        let number = self.next_number();
        self.entries.push(Entry { number, from, to, amount });
        number
    }
}

#[cfg(test)]
mod tests;
