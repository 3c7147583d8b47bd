//! What the commands of a batch mention, and so what there is to read.

use crate::shop::ledger::{Action, Command, Ledger, Order};
use crate::shop::{AccountId, Username};

use super::super::names::{Known, Names};
use super::super::spellings::Spellings;

/// What a batch mentions, each thing once, sorted: an index is walked in one direction.
#[derive(Default)]
pub(super) struct Mentioned<'batch> {
    pub accounts: Vec<i64>,
    pub usernames: Vec<String>,
    pub items: Vec<&'batch str>,
    /// Each with its owner.
    pub keys: Vec<(i64, &'batch str)>,
    pub newcomers: Vec<&'batch str>,
    /// Names that are not known, as they were typed and as new accounts spell them.
    spellings: Vec<Spellings>,
    pub canonical: Vec<String>,
}

impl<'batch> Mentioned<'batch> {
    /// Names that are known are not asked about: they go into `ledger` at once.
    pub fn by(
        commands: &'batch [Command],
        known: Known,
        names: &Names,
        ledger: &mut Ledger,
    ) -> Mentioned<'batch> {
        let accounts = Vec::with_capacity(commands.len());
        let mut mentioned = Mentioned { accounts, ..Mentioned::default() };
        for command in commands {
            match command {
                Command::OpenAccount { username, .. } => {
                    if !mentioned.know(username, known, names, ledger) {
                        mentioned.newcomers.push(username.as_str());
                    }
                }
                Command::Order(order) => mentioned.order(order, known, names, ledger),
            }
        }
        mentioned.each_once()
    }

    fn order(&mut self, order: &'batch Order, known: Known, names: &Names, ledger: &mut Ledger) {
        let Order { by, action, key } = order;
        if names.is_owner(known, by) {
            self.accounts.push(by.account.0);
            ledger.owners.insert(by.account, by.username.clone());
        } else {
            // Asked for by name, as somebody who is sent coins.
            self.usernames.push(by.username.to_string());
        }
        match action {
            Ok(Action::Transfer { to, .. }) => {
                self.know(to, known, names, ledger);
            }
            Ok(Action::Purchase { item }) => self.items.push(item.as_str()),
            Err(_) => {}
        }
        if let Some((key, _)) = key {
            self.keys.push((by.account.0, key.as_str()));
        }
    }

    /// Whether it is known whose name `username` is.
    fn know(
        &mut self,
        username: &Username,
        known: Known,
        names: &Names,
        ledger: &mut Ledger,
    ) -> bool {
        let Some(account) = names.account(known, username) else {
            self.spellings.push(Spellings::of(username));
            return false;
        };
        self.accounts.push(account.0);
        ledger.accounts.insert(username.clone(), account);
        true
    }

    fn each_once(mut self) -> Mentioned<'batch> {
        let texts = self.spellings.iter().flat_map(|it| it.texts());
        self.usernames.extend(texts.map(str::to_owned));
        let canonical = self.spellings.iter().filter_map(|it| it.canonical());
        self.canonical = canonical.map(Username::to_string).collect();
        each_once(&mut self.accounts);
        each_once(&mut self.usernames);
        each_once(&mut self.items);
        each_once(&mut self.keys);
        each_once(&mut self.newcomers);
        each_once(&mut self.canonical);
        self
    }

    /// Puts the accounts that were found by another spelling than the typed one into `ledger`
    /// under the typed one. `others` are those of them that no new account would have.
    pub fn settle_spellings(&self, others: &[(Username, AccountId)], ledger: &mut Ledger) {
        for spelled in &self.spellings {
            if ledger.accounts.contains_key(spelled.typed()) {
                continue;
            }
            let canonical = spelled.canonical().and_then(|it| ledger.accounts.get_key_value(it));
            let candidates = canonical.into_iter().chain(others.iter().map(|(it, at)| (it, at)));
            let nearest =
                candidates.filter_map(|(it, account)| spelled.distance(*account, it)).min();
            if let Some((_, account)) = nearest {
                ledger.accounts.insert(spelled.typed().clone(), account);
            }
        }
    }
}

fn each_once<T: Ord>(things: &mut Vec<T>) {
    things.sort_unstable();
    things.dedup();
}
