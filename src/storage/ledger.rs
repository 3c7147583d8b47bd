//! The statements of a batch: what it reads, the accounts that it opens, what else it writes.

use uuid::Uuid;

use crate::shop::ledger::{
    Action, Changes, Command, Destination, Ledger, Order, Refusal, Remembered,
};
use crate::shop::{
    AccountId, Amount, BooksId, Coins, Fingerprint, IdempotencyKey, ItemId, ItemName, Username,
};

use super::names::{Known, Names};
use super::spellings::Spellings;
use super::{StorageError, Transaction};

/// `outcome` of an idempotency key whose request was carried out.
const DONE: &str = "done";

impl Transaction<'_> {
    /// Reads every balance, account, price and idempotency key that `commands` mention,
    /// and reserves an account number for each newcomer.
    pub async fn ledger_fetch(&mut self, commands: &[Command]) -> Result<Ledger, StorageError> {
        let mut ledger = Ledger::default();
        let names = self.writer.database.names().clone();
        let known = names.known();
        let mentioned = Mentioned::by(commands, known, &names, &mut ledger);
        // kind, id, number, name, fingerprint, outcome: one shape for all seven reads.
        type Row = (i16, i64, i64, Option<String>, Option<Vec<u8>>, Option<String>);
        let rows: Vec<Row> = self
            .writer
            .within_patience(async |connection| {
                sqlx::query_as(
                    "SELECT 0::int2, user_id, coins, NULL::text, NULL::bytea, NULL::text
                     FROM balance WHERE user_id = ANY($1)
                     UNION ALL
                     SELECT 1::int2, users.id, balance.coins, users.username, NULL, NULL
                     FROM users JOIN balance ON balance.user_id = users.id
                     WHERE users.username = ANY($2)
                     UNION ALL
                     SELECT 2::int2, id, price, name, NULL, NULL
                     FROM merch WHERE name = ANY($3)
                     UNION ALL
                     SELECT 3::int2, k.user_id, 0, k.key, k.fingerprint, k.outcome
                     FROM unnest($4::int8[], $5::text[]) AS wanted (user_id, key)
                     JOIN idempotency_keys k
                       ON k.user_id = wanted.user_id AND k.key = wanted.key
                     WHERE k.created_at > now() - interval '7 days'
                     UNION ALL
                     SELECT 4::int2, nextval('users_id_seq'), 0, newcomer.username, NULL, NULL
                     FROM unnest($6::text[]) AS newcomer (username)
                     WHERE NOT EXISTS
                       (SELECT 1 FROM users WHERE users.username = newcomer.username)
                     UNION ALL
                     SELECT 5::int2, 0, 0, NULL, uuid_send(id), NULL
                     FROM identity WHERE single AND table_oid = identity.tableoid
                     UNION ALL
                     SELECT 6::int2, users.id, balance.coins, users.username, NULL, NULL
                     FROM users JOIN balance ON balance.user_id = users.id
                     WHERE normalize(users.username, NFKC) = ANY($7)
                     AND users.username IS NOT NFKC NORMALIZED",
                )
                .bind(&mentioned.accounts)
                .bind(&mentioned.usernames)
                .bind(&mentioned.items)
                .bind(&mentioned.key_owners)
                .bind(&mentioned.keys)
                .bind(&mentioned.newcomers)
                .bind(&mentioned.canonical)
                .fetch_all(connection)
                .await
            })
            .await?;

        let mut others = Vec::new();
        for (kind, id, number, name, fingerprint, outcome) in rows {
            let name = name.as_deref();
            let account = AccountId(id);
            let understood = match kind {
                0 => balance(number).map(|coins| {
                    ledger.balances.insert(account, coins);
                }),
                1 | 6 => username(name).zip(balance(number)).map(|(username, coins)| {
                    if kind == 6 {
                        others.push((username.clone(), account));
                    }
                    names.remember(known, account, &username);
                    ledger.owners.insert(account, username.clone());
                    ledger.accounts.insert(username, account);
                    ledger.balances.insert(account, coins);
                }),
                2 => merch(id, number, name).map(|(name, item, price)| {
                    ledger.merch.insert(name, (item, price));
                }),
                3 => remembered(name, fingerprint, outcome).map(|(key, remembered)| {
                    ledger.keys.insert((account, key), remembered);
                }),
                4 => username(name).map(|username| {
                    ledger.reserved.insert(username, account);
                }),
                _ => books(fingerprint).map(|books| ledger.books = Some(books)),
            };
            understood.ok_or_else(|| {
                StorageError::Unexpected(format!("row of kind {kind}, id {id} makes no sense"))
            })?;
        }
        mentioned.settle_spellings(&others, &mut ledger);
        if ledger.books.is_none() || ledger.books != known.books.map(|books| books.id) {
            // What was remembered, and is in the ledger now, was of others.
            self.writer.leave();
            return Err(StorageError::Unavailable("these are not the books they were".into()));
        }
        Ok(ledger)
    }

    /// Writes `changes`, and that this batch wrote them.
    pub async fn ledger_write(&mut self, changes: &Changes) -> Result<(), StorageError> {
        self.wrote = true;
        if !changes.opened.is_empty() {
            self.accounts_insert_many(changes).await?;
        }

        let (user_ids, coins): (Vec<i64>, Vec<i64>) =
            changes.balances.iter().map(|(account, coins)| (account.0, coins.get())).unzip();
        let mut owners = Vec::with_capacity(changes.purchases.len());
        let mut items = Vec::with_capacity(changes.purchases.len());
        let mut quantities = Vec::with_capacity(changes.purchases.len());
        for ((account, item), quantity) in &changes.purchases {
            owners.push(account.0);
            items.push(item.0);
            quantities.push(*quantity);
        }
        let mut from_ids = Vec::with_capacity(changes.entries.len());
        let mut to_ids = Vec::with_capacity(changes.entries.len());
        let mut item_ids = Vec::with_capacity(changes.entries.len());
        let mut amounts = Vec::with_capacity(changes.entries.len());
        for entry in &changes.entries {
            let (to, item) = match entry.to {
                Destination::Account(to) => (Some(to.0), None),
                Destination::Item(item) => (None, Some(item.0)),
            };
            from_ids.push(entry.from.0);
            to_ids.push(to);
            item_ids.push(item);
            amounts.push(entry.amount.get());
        }
        let mut key_owners = Vec::with_capacity(changes.remembered.len());
        let mut keys = Vec::with_capacity(changes.remembered.len());
        let mut fingerprints = Vec::with_capacity(changes.remembered.len());
        let mut outcomes = Vec::with_capacity(changes.remembered.len());
        for (account, key, remembered) in &changes.remembered {
            key_owners.push(account.0);
            keys.push(key.as_str());
            fingerprints.push(remembered.fingerprint.0.as_slice());
            outcomes.push(remembered.outcome.map_or_else(Refusal::code, |()| DONE));
        }

        let (writer, batch) = (self.writer.id, self.writer.batch);
        let moved: i64 = self
            .writer
            .within_patience(async |connection| {
                sqlx::query_scalar(
                    "WITH moved AS (
                         UPDATE balance SET coins = new.coins, version = balance.version + 1
                         FROM unnest($1::int8[], $2::int8[]) AS new (user_id, coins)
                         WHERE balance.user_id = new.user_id
                         RETURNING 1
                     ), delivered AS (
                         INSERT INTO inventory (user_id, item_id, quantity)
                         SELECT * FROM unnest($3::int8[], $4::int2[], $5::int8[])
                         ON CONFLICT (user_id, item_id)
                         DO UPDATE SET quantity = inventory.quantity + excluded.quantity
                     ), recorded AS (
                         INSERT INTO history (from_id, to_id, item_id, amount)
                         SELECT from_id, to_id, item_id, amount
                         FROM unnest($6::int8[], $7::int8[], $8::int2[], $9::int8[])
                              WITH ORDINALITY
                              AS new (from_id, to_id, item_id, amount, position)
                         ORDER BY position
                     ), remembered AS (
                         INSERT INTO idempotency_keys (user_id, key, fingerprint, outcome)
                         SELECT * FROM unnest($10::int8[], $11::text[], $12::bytea[], $13::text[])
                         ON CONFLICT (user_id, key)
                         DO UPDATE SET fingerprint = excluded.fingerprint,
                                       outcome = excluded.outcome,
                                       created_at = excluded.created_at
                     )
                     INSERT INTO writers (id, batch) VALUES ($14, $15)
                     ON CONFLICT (id)
                     DO UPDATE SET batch = excluded.batch, updated_at = excluded.updated_at
                     RETURNING (SELECT count(*) FROM moved)",
                )
                .bind(&user_ids)
                .bind(&coins)
                .bind(&owners)
                .bind(&items)
                .bind(&quantities)
                .bind(&from_ids)
                .bind(&to_ids)
                .bind(&item_ids)
                .bind(&amounts)
                .bind(&key_owners)
                .bind(&keys)
                .bind(&fingerprints)
                .bind(&outcomes)
                .bind(writer)
                .bind(batch)
                .fetch_one(connection)
                .await
            })
            .await?;
        // What the history's foreign keys would say, said once for the whole batch: every
        // account that an entry names is among the balances.
        if moved != user_ids.len() as i64 {
            return Err(StorageError::Unexpected(format!(
                "{moved} of {} balances are there to be written",
                user_ids.len()
            )));
        }
        Ok(())
    }

    /// Opens accounts: the user, the balance and the starting grant's history together.
    async fn accounts_insert_many(&mut self, changes: &Changes) -> Result<(), StorageError> {
        let opened = &changes.opened;
        let ids: Vec<i64> = opened.iter().map(|account| account.id.0).collect();
        let usernames: Vec<&str> = opened.iter().map(|account| account.username.as_str()).collect();
        let hashes: Vec<&str> = opened.iter().map(|account| &*account.password_hash).collect();
        let grants: Vec<i64> = opened.iter().map(|account| account.grant.get()).collect();
        self.writer
            .within_patience(async |connection| {
                sqlx::query(
                    "WITH opened AS (
                         INSERT INTO users (id, username, password_hash)
                         SELECT * FROM unnest($1::int8[], $2::text[], $3::text[])
                     ), funded AS (
                         INSERT INTO balance (user_id, coins)
                         SELECT * FROM unnest($1::int8[], $4::int8[])
                     )
                     INSERT INTO history (to_id, amount)
                     SELECT * FROM unnest($1::int8[], $4::int8[])",
                )
                .bind(&ids)
                .bind(&usernames)
                .bind(&hashes)
                .bind(&grants)
                .execute(connection)
                .await
            })
            .await?;
        Ok(())
    }
}

/// What a batch mentions, each thing once, sorted: an index is walked in one direction.
struct Mentioned<'batch> {
    accounts: Vec<i64>,
    usernames: Vec<String>,
    items: Vec<&'batch str>,
    key_owners: Vec<i64>,
    keys: Vec<&'batch str>,
    newcomers: Vec<&'batch str>,
    /// Names that are not known, as they were typed and as new accounts spell them.
    spellings: Vec<Spellings>,
    canonical: Vec<String>,
}

impl<'batch> Mentioned<'batch> {
    /// Names that are known are not asked about: they go into `ledger` at once.
    fn by(
        commands: &'batch [Command],
        known: Known,
        names: &Names,
        ledger: &mut Ledger,
    ) -> Mentioned<'batch> {
        let mut accounts = Vec::with_capacity(commands.len());
        let (mut usernames, mut spellings) = (Vec::new(), Vec::new());
        let mut items = Vec::new();
        let mut keys = Vec::new();
        let mut newcomers = Vec::new();
        let (known_accounts, owners) = (&mut ledger.accounts, &mut ledger.owners);
        let mut is_known = |username: &Username, accounts: &mut Vec<i64>| {
            let Some(account) = names.account(known, username) else {
                spellings.push(Spellings::of(username));
                return false;
            };
            accounts.push(account.0);
            known_accounts.insert(username.clone(), account);
            true
        };
        for command in commands {
            match command {
                Command::OpenAccount { username, .. } => {
                    if !is_known(username, &mut accounts) {
                        newcomers.push(username.as_str());
                    }
                }
                Command::Order(Order { by, action, key }) => {
                    match names.username(known, by.account) {
                        Some(username) => {
                            accounts.push(by.account.0);
                            owners.insert(by.account, username);
                        }
                        // Asked for by name, as somebody who is sent coins.
                        None => usernames.push(by.username.to_string()),
                    }
                    match action {
                        Ok(Action::Transfer { to, .. }) => {
                            is_known(to, &mut accounts);
                        }
                        Ok(Action::Purchase { item }) => items.push(item.as_str()),
                        Err(_) => {}
                    }
                    keys.extend(key.iter().map(|(key, _)| (by.account.0, key.as_str())));
                }
            }
        }
        usernames.extend(spellings.iter().flat_map(|it| it.texts()).map(str::to_owned));
        let canonical = spellings.iter().filter_map(|it| it.canonical()).map(Username::to_string);
        let canonical = each_once(canonical.collect());
        let (key_owners, keys) = each_once(keys).into_iter().unzip();
        Mentioned {
            accounts: each_once(accounts),
            usernames: each_once(usernames),
            items: each_once(items),
            key_owners,
            keys,
            newcomers: each_once(newcomers),
            spellings,
            canonical,
        }
    }

    /// Puts the accounts that were found by another spelling than the typed one into `ledger`
    /// under the typed one. `others` are those of them that no new account would have.
    fn settle_spellings(&self, others: &[(Username, AccountId)], ledger: &mut Ledger) {
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

fn each_once<T: Ord>(mut things: Vec<T>) -> Vec<T> {
    things.sort_unstable();
    things.dedup();
    things
}

fn balance(coins: i64) -> Option<Coins> {
    Coins::new(coins)
}

fn username(name: Option<&str>) -> Option<Username> {
    Username::parse(name?).ok()
}

fn books(id: Option<Vec<u8>>) -> Option<BooksId> {
    Uuid::from_slice(&id?).ok().map(BooksId)
}

fn merch(id: i64, price: i64, name: Option<&str>) -> Option<(ItemName, ItemId, Amount)> {
    let id = ItemId(i16::try_from(id).ok()?);
    Some((ItemName::parse(name?)?, id, Amount::new(price)?))
}

fn remembered(
    key: Option<&str>,
    fingerprint: Option<Vec<u8>>,
    outcome: Option<String>,
) -> Option<(IdempotencyKey, Remembered)> {
    let outcome = match outcome?.as_str() {
        DONE => Ok(()),
        code => Err(Refusal::from_code(code)?),
    };
    let fingerprint = Fingerprint(fingerprint?.try_into().ok()?);
    let key = IdempotencyKey::parse(key?.as_bytes()).ok()?;
    Some((key, Remembered { fingerprint, outcome }))
}
