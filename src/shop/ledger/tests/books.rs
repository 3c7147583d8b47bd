//! A database in memory: what a ledger is read from and what changes are written to.

use uuid::Uuid;

use super::super::*;
use crate::shop::CATALOGUE;

/// Everybody there is or may be, in the order of their numbers, which start at 1.
pub const NAMES: [&str; 7] = ["alice", "bob", "carol", "newcomer", "first", "second", "third"];

/// Which books these are.
pub const ID: BooksId = BooksId(Uuid::from_u128(1));

/// What the tables hold. Account numbers belong to names for good, so that the same
/// commands mean the same in another batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// The newest row of the log.
    pub head: LogNumber,
    pub balances: BTreeMap<AccountId, Coins>,
    pub inventory: BTreeMap<(AccountId, ItemId), i64>,
    pub grants: BTreeMap<AccountId, Amount>,
    pub history: Vec<Entry>,
    pub keys: HashMap<(AccountId, IdempotencyKey), Remembered>,
}

impl Books {
    /// Books with these accounts, the first of [`NAMES`], their coins granted.
    pub fn of<const N: usize>(accounts: [(&str, i64); N]) -> Books {
        let mut books = Books::default();
        for (number, (name, coins)) in (1..).zip(accounts) {
            assert_eq!(number_of(name), AccountId(number));
            books.balances.insert(AccountId(number), Coins::new(coins).unwrap());
            books.grants.extend(Amount::new(coins).map(|grant| (AccountId(number), grant)));
        }
        books
    }

    pub fn item(&self, name: &str) -> ItemId {
        ItemId((1..).zip(CATALOGUE).find(|(_, item)| item.0 == name).unwrap().0)
    }

    pub fn holds(&self, account: AccountId) -> i64 {
        self.balances[&account].get()
    }

    /// One batch: read, execute, write.
    pub fn carry_out(&mut self, commands: &[Command]) -> Vec<Answer> {
        let (answers, changes) = execute(self.ledger_for(commands), commands);
        self.write(&changes);
        answers
    }

    /// Everything that there is, as a ledger.
    pub fn whole(&self) -> Ledger {
        let (mut accounts, mut reserved) = (HashMap::new(), HashMap::new());
        for (number, name) in (1..).zip(NAMES) {
            let (id, name) = (AccountId(number), Username::parse(name).unwrap());
            let side = if self.balances.contains_key(&id) { &mut accounts } else { &mut reserved };
            side.insert(name, id);
        }
        let owners = accounts.iter().map(|(name, id)| (*id, name.clone())).collect();
        let merch = (1..).zip(CATALOGUE).map(|(id, (name, price))| {
            (ItemName::parse(name).unwrap(), (ItemId(id), Amount::new(price).unwrap()))
        });
        Ledger {
            head: self.head,
            books: Some(ID),
            owners,
            balances: self.balances.iter().map(|(id, coins)| (*id, *coins)).collect(),
            accounts,
            reserved,
            merch: merch.collect(),
            keys: self.keys.clone(),
        }
    }

    /// Only what `commands` mention, which is what a batch reads.
    pub fn ledger_for(&self, commands: &[Command]) -> Ledger {
        let mut ledger = self.whole();
        let (mut names, mut openings) = (Vec::new(), Vec::new());
        let (mut numbers, mut items, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        for command in commands {
            match command {
                Command::OpenAccount { username, .. } => {
                    names.push(username);
                    openings.push(username);
                }
                Command::Order(Order { by, action, key }) => {
                    numbers.push(by.account);
                    keys.extend(key.iter().map(|(key, _)| (by.account, key)));
                    match action {
                        Ok(Action::Transfer { to, .. }) => names.push(to),
                        Ok(Action::Purchase { item }) => items.push(item),
                        Err(_) => {}
                    }
                }
            }
        }
        ledger.accounts.retain(|name, _| names.contains(&name));
        numbers.extend(ledger.accounts.values());
        ledger.balances.retain(|id, _| numbers.contains(id));
        ledger.reserved.retain(|name, _| openings.contains(&name));
        ledger.merch.retain(|name, _| items.contains(&name));
        ledger.keys.retain(|(id, key), _| keys.contains(&(*id, key)));
        ledger
    }

    /// What the tables and their constraints would make of `changes`.
    pub fn write(&mut self, changes: &Changes) {
        let (head, new_head) = changes.head;
        assert_eq!(head, self.head, "nobody else wrote meanwhile");
        let opened = changes.opened.iter().map(|opened| opened.number);
        let mut numbers: Vec<LogNumber> =
            opened.chain(changes.entries.iter().map(|entry| entry.number)).collect();
        numbers.sort_unstable();
        let expected: Vec<LogNumber> = (head.0 + 1..=new_head.0).map(LogNumber).collect();
        assert_eq!(numbers, expected, "each number once, and no gap");
        assert!(changes.entries.is_sorted_by_key(|entry| entry.number));
        self.head = new_head;
        for opened in &changes.opened {
            assert_eq!(opened.id, number_of(opened.username.as_str()));
            let taken = self.balances.insert(opened.id, opened.grant.into());
            assert_eq!(taken, None, "{} is opened once", opened.username);
            self.grants.insert(opened.id, opened.grant);
        }
        for (account, coins) in &changes.balances {
            let balance = self.balances.get_mut(account).expect("a balance to update");
            *balance = *coins;
        }
        for (place, quantity) in &changes.purchases {
            assert!(*quantity > 0, "{place:?}: {quantity}");
            *self.inventory.entry(*place).or_default() += quantity;
        }
        for entry in &changes.entries {
            assert_ne!(Destination::Account(entry.from), entry.to, "nobody pays oneself");
            // The tables check that these rows exist, and no row of the history by itself.
            assert!(changes.balances.contains_key(&entry.from), "{entry:?}");
            assert!(match entry.to {
                Destination::Account(to) => changes.balances.contains_key(&to),
                Destination::Item(item) => changes.purchases.contains_key(&(entry.from, item)),
            });
            self.history.push(*entry);
        }
        for (account, key, remembered) in &changes.remembered {
            let earlier = self.keys.insert((*account, key.clone()), *remembered);
            assert_eq!(earlier, None, "{key:?} is remembered once");
        }
    }
}

/// The number that `name` has or would get.
pub fn number_of(name: &str) -> AccountId {
    let position = NAMES.iter().position(|known| *known == name);
    AccountId(i64::try_from(position.expect("a name of these books")).unwrap() + 1)
}

/// Whoever the account is of, or would be.
pub fn owner_of(account: AccountId) -> Owner {
    let name = usize::try_from(account.0 - 1).ok().and_then(|position| NAMES.get(position));
    let username = Username::parse(name.unwrap_or(&"stranger")).unwrap();
    Owner { account, username, books: ID }
}
