//! The statements of a batch: what it reads, the accounts that it opens, what else it writes.

mod mentioned;

use uuid::Uuid;

use crate::shop::ledger::{Changes, Command, Destination, Ledger, Refusal, Remembered};
use crate::shop::{
    AccountId, Amount, BooksId, Coins, Fingerprint, IdempotencyKey, ItemId, ItemName, LogNumber,
    Username,
};

use super::names::{Known, Names};
use super::{StorageError, Transaction};

use mentioned::Mentioned;

/// `outcome` of an idempotency key whose request was carried out.
const DONE: &str = "done";

/// One row of what a batch reads; what it means is up to its kind.
struct Read {
    kind: i16,
    /// Of the account, the item or the newest row of the log.
    id: i64,
    /// Coins, a price, or the number that a key stands for.
    number: Option<i64>,
    /// Of the account or the item, or the key itself.
    name: Option<String>,
    /// Of a key's request, or which books these are.
    bytes: Option<Vec<u8>>,
    outcome: Option<String>,
}

/// The same in the order of the statement: names would be looked up once a row.
type Columns = (i16, i64, Option<i64>, Option<String>, Option<Vec<u8>>, Option<String>);

const BALANCE: i16 = 0;
const ACCOUNT: i16 = 1;
const ITEM: i16 = 2;
const KEY: i16 = 3;
const RESERVED: i16 = 4;
const HEAD: i16 = 5;
const BOOKS: i16 = 6;
/// An account whose name a new one would not have.
const SPELLED: i16 = 7;

/// Reads what a batch mentions. A key's number was its movement's, unless a replica that knows no
/// numbers has used the key again since: both are of one transaction, and so of one time.
const LEDGER_FETCH: &str = "/* ledger_fetch */
    SELECT 5::int2 AS kind, id, NULL::int8 AS number, NULL::text AS name,
           NULL::bytea AS bytes, NULL::text AS outcome
    FROM log_head WHERE single
    UNION ALL
    SELECT 0::int2, user_id, coins, NULL, NULL, NULL
    FROM balance WHERE user_id = ANY($1)
    UNION ALL
    SELECT 1::int2, users.id, balance.coins, users.username, NULL, NULL
    FROM users JOIN balance ON balance.user_id = users.id
    WHERE users.username = ANY($2)
    UNION ALL
    SELECT 2::int2, id, price, name, NULL, NULL
    FROM merch WHERE name = ANY($3)
    UNION ALL
    SELECT 3::int2, k.user_id,
           CASE WHEN EXISTS (SELECT FROM history
                             WHERE history.id = k.number AND history.created_at = k.created_at)
                THEN k.number END,
           k.key, k.fingerprint, k.outcome
    FROM unnest($4::int8[], $5::text[]) AS wanted (user_id, key)
    JOIN idempotency_keys k ON k.user_id = wanted.user_id AND k.key = wanted.key
    WHERE k.created_at > now() - interval '7 days'
    UNION ALL
    SELECT 4::int2, nextval('users_id_seq'), NULL, newcomer.username, NULL, NULL
    FROM unnest($6::text[]) AS newcomer (username)
    WHERE NOT EXISTS (SELECT 1 FROM users WHERE users.username = newcomer.username)
    UNION ALL
    SELECT 6::int2, 0, NULL, NULL, uuid_send(id), NULL
    FROM identity WHERE single AND table_oid = identity.tableoid
    UNION ALL
    SELECT 7::int2, users.id, balance.coins, users.username, NULL, NULL
    FROM users JOIN balance ON balance.user_id = users.id
    WHERE normalize(users.username, NFKC) = ANY($7)
    AND users.username IS NOT NFKC NORMALIZED";

/// Writes what a batch changes. What is returned has the head moved before all but the writer's
/// own row.
const LEDGER_WRITE: &str = "/* ledger_write */
    WITH head AS (
        UPDATE log_head SET id = $17 WHERE single AND id = $16 AND $16 <> $17
        RETURNING 1
    ), moved AS (
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
        INSERT INTO history (id, from_id, to_id, item_id, amount)
        SELECT new.*
        FROM head, unnest($6::int8[], $7::int8[], $8::int8[], $9::int2[], $10::int8[])
             AS new (id, from_id, to_id, item_id, amount)
    ), remembered AS (
        INSERT INTO idempotency_keys (user_id, key, fingerprint, outcome, number)
        SELECT *
        FROM unnest($11::int8[], $12::text[], $13::bytea[], $14::text[], $15::int8[])
        ON CONFLICT (user_id, key)
        DO UPDATE SET fingerprint = excluded.fingerprint,
                      outcome = excluded.outcome,
                      number = excluded.number,
                      created_at = excluded.created_at
    )
    INSERT INTO writers (id, batch) VALUES ($18, $19)
    ON CONFLICT (id)
    DO UPDATE SET batch = excluded.batch, updated_at = excluded.updated_at
    RETURNING EXISTS (SELECT FROM head), (SELECT count(*) FROM moved)";

impl Transaction<'_> {
    /// Reads the head of the log, which books these are, and every balance, account, price and
    /// idempotency key that `commands` mention, and reserves an account number for each newcomer.
    pub async fn ledger_fetch(&mut self, commands: &[Command]) -> Result<Ledger, StorageError> {
        let mut ledger = Ledger::with_room_for(commands.len());
        let names = self.writer.database.names().clone();
        let known = names.known();
        let mentioned = Mentioned::by(commands, known, &names, &mut ledger);
        let rows = self.rows_fetch(&mentioned).await?;

        let mut others = Vec::new();
        let mut has_head = false;
        for row in rows {
            let row = Read::from(row);
            let (kind, id) = (row.kind, row.id);
            has_head |= kind == HEAD;
            row.enter(known, &names, &mut others, &mut ledger).ok_or_else(|| {
                StorageError::Unexpected(format!("row of kind {kind}, id {id} makes no sense"))
            })?;
        }
        mentioned.settle_spellings(&others, &mut ledger);
        if ledger.books.is_none() || ledger.books != known.books.map(|books| books.id) {
            // What was remembered, and is in the ledger now, was of others.
            self.writer.leave();
            return Err(StorageError::Unavailable("these are not the books they were".into()));
        }
        if !has_head {
            let why = "the log has no head: its row in `log_head` is gone; restore the database";
            return Err(StorageError::Unexpected(why.into()));
        }
        Ok(ledger)
    }

    async fn rows_fetch(&mut self, mentioned: &Mentioned<'_>) -> Result<Vec<Columns>, sqlx::Error> {
        let (key_owners, keys): (Vec<i64>, Vec<&str>) = mentioned.keys.iter().copied().unzip();
        self.writer
            .within_patience(async |connection| {
                sqlx::query_as(LEDGER_FETCH)
                    .bind(&mentioned.accounts)
                    .bind(&mentioned.usernames)
                    .bind(&mentioned.items)
                    .bind(&key_owners)
                    .bind(&keys)
                    .bind(&mentioned.newcomers)
                    .bind(&mentioned.canonical)
                    .fetch_all(connection)
                    .await
            })
            .await
    }

    /// Writes `changes`, and that this batch wrote them. A conflict where the head of the log
    /// is not the one that was read.
    pub async fn ledger_write(&mut self, changes: &Changes) -> Result<(), StorageError> {
        if !changes.opened.is_empty() {
            self.accounts_insert_many(changes).await?;
        }
        let rows = Rows::of(changes);
        let (head_moved, moved) = self.rows_write(&rows, changes.head).await?;
        // Under SERIALIZABLE the database says so itself; this does not lean on it.
        if !head_moved && changes.head.0 != changes.head.1 {
            return Err(StorageError::Conflict { sqlstate: "40001".into() });
        }
        // What the history's foreign keys would say, said once for the whole batch: every
        // account that an entry names is among the balances.
        if moved != rows.user_ids.len() as i64 {
            return Err(StorageError::Unexpected(format!(
                "{moved} of {} balances are there to be written",
                rows.user_ids.len()
            )));
        }
        Ok(())
    }

    /// Whether the head was moved from the first to the second, and how many balances there are.
    async fn rows_write(
        &mut self,
        rows: &Rows<'_>,
        (head, new_head): (LogNumber, LogNumber),
    ) -> Result<(bool, i64), sqlx::Error> {
        let (writer, batch) = self.signature();
        self.writer
            .within_patience(async |connection| {
                sqlx::query_as(LEDGER_WRITE)
                    .bind(&rows.user_ids)
                    .bind(&rows.coins)
                    .bind(&rows.owners)
                    .bind(&rows.items)
                    .bind(&rows.quantities)
                    .bind(&rows.numbers)
                    .bind(&rows.from_ids)
                    .bind(&rows.to_ids)
                    .bind(&rows.item_ids)
                    .bind(&rows.amounts)
                    .bind(&rows.key_owners)
                    .bind(&rows.keys)
                    .bind(&rows.fingerprints)
                    .bind(&rows.outcomes)
                    .bind(&rows.key_numbers)
                    .bind(head.0)
                    .bind(new_head.0)
                    .bind(writer)
                    .bind(batch)
                    .fetch_one(connection)
                    .await
            })
            .await
    }

    /// Opens accounts: the user and the balance; the history of the starting grant is written
    /// with everything else that has a number.
    async fn accounts_insert_many(&mut self, changes: &Changes) -> Result<(), StorageError> {
        let opened = &changes.opened;
        let ids: Vec<i64> = opened.iter().map(|account| account.id.0).collect();
        let usernames: Vec<&str> = opened.iter().map(|account| account.username.as_str()).collect();
        let hashes: Vec<&str> = opened.iter().map(|account| &*account.password_hash).collect();
        let grants: Vec<i64> = opened.iter().map(|account| account.grant.get()).collect();
        self.writer
            .within_patience(async |connection| {
                sqlx::query(
                    "/* accounts_insert_many */
                     WITH opened AS (
                         INSERT INTO users (id, username, password_hash)
                         SELECT * FROM unnest($1::int8[], $2::text[], $3::text[])
                     )
                     INSERT INTO balance (user_id, coins)
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

impl From<Columns> for Read {
    fn from((kind, id, number, name, bytes, outcome): Columns) -> Read {
        Read { kind, id, number, name, bytes, outcome }
    }
}

impl Read {
    /// Puts what the row says, read after `known` was, into `ledger`; `None` if it makes no sense.
    fn enter(
        self,
        known: Known,
        names: &Names,
        others: &mut Vec<(Username, AccountId)>,
        ledger: &mut Ledger,
    ) -> Option<()> {
        let account = AccountId(self.id);
        match self.kind {
            HEAD => ledger.head = LogNumber(self.id),
            BALANCE => {
                ledger.balances.insert(account, Coins::new(self.number?)?);
            }
            ACCOUNT | SPELLED => {
                let username = Username::parse(&self.name?).ok()?;
                if self.kind == SPELLED {
                    others.push((username.clone(), account));
                }
                names.remember(known, account, &username);
                ledger.owners.insert(account, username.clone());
                ledger.accounts.insert(username, account);
                ledger.balances.insert(account, Coins::new(self.number?)?);
            }
            ITEM => {
                let item = ItemId(i16::try_from(self.id).ok()?);
                let price = Amount::new(self.number?)?;
                ledger.merch.insert(ItemName::parse(&self.name?)?, (item, price));
            }
            KEY => {
                let outcome = match self.outcome?.as_str() {
                    DONE => Ok(self.number.map(LogNumber)),
                    code => Err(Refusal::from_code(code)?),
                };
                let fingerprint = Fingerprint(self.bytes?.try_into().ok()?);
                let key = IdempotencyKey::parse(self.name?.as_bytes()).ok()?;
                ledger.keys.insert((account, key), Remembered { fingerprint, outcome });
            }
            RESERVED => {
                ledger.reserved.insert(Username::parse(&self.name?).ok()?, account);
            }
            BOOKS => ledger.books = Some(BooksId(Uuid::from_slice(&self.bytes?).ok()?)),
            _ => return None,
        }
        Some(())
    }
}

/// The columns of what a batch writes.
#[derive(Default)]
struct Rows<'batch> {
    user_ids: Vec<i64>,
    coins: Vec<i64>,
    owners: Vec<i64>,
    items: Vec<i16>,
    quantities: Vec<i64>,
    numbers: Vec<i64>,
    from_ids: Vec<Option<i64>>,
    to_ids: Vec<Option<i64>>,
    item_ids: Vec<Option<i16>>,
    amounts: Vec<i64>,
    key_owners: Vec<i64>,
    keys: Vec<&'batch str>,
    fingerprints: Vec<&'batch [u8]>,
    outcomes: Vec<&'static str>,
    key_numbers: Vec<Option<i64>>,
}

impl<'batch> Rows<'batch> {
    fn with_room_for(changes: &Changes) -> Rows<'batch> {
        let entries = changes.opened.len() + changes.entries.len();
        Rows {
            user_ids: Vec::with_capacity(changes.balances.len()),
            coins: Vec::with_capacity(changes.balances.len()),
            owners: Vec::with_capacity(changes.purchases.len()),
            items: Vec::with_capacity(changes.purchases.len()),
            quantities: Vec::with_capacity(changes.purchases.len()),
            numbers: Vec::with_capacity(entries),
            from_ids: Vec::with_capacity(entries),
            to_ids: Vec::with_capacity(entries),
            item_ids: Vec::with_capacity(entries),
            amounts: Vec::with_capacity(entries),
            ..Rows::default()
        }
    }

    fn of(changes: &'batch Changes) -> Rows<'batch> {
        let mut rows = Rows::with_room_for(changes);
        for (account, coins) in &changes.balances {
            rows.user_ids.push(account.0);
            rows.coins.push(coins.get());
        }
        for ((account, item), quantity) in &changes.purchases {
            rows.owners.push(account.0);
            rows.items.push(item.0);
            rows.quantities.push(*quantity);
        }
        for opened in &changes.opened {
            rows.enter(opened.number, None, Destination::Account(opened.id), opened.grant);
        }
        for entry in &changes.entries {
            rows.enter(entry.number, Some(entry.from), entry.to, entry.amount);
        }
        for (account, key, remembered) in &changes.remembered {
            rows.key_owners.push(account.0);
            rows.keys.push(key.as_str());
            rows.fingerprints.push(remembered.fingerprint.0.as_slice());
            rows.outcomes.push(remembered.outcome.map_or_else(Refusal::code, |_| DONE));
            rows.key_numbers.push(remembered.outcome.ok().flatten().map(|number| number.0));
        }
        rows
    }

    fn enter(
        &mut self,
        number: LogNumber,
        from: Option<AccountId>,
        to: Destination,
        amount: Amount,
    ) {
        let (to, item) = match to {
            Destination::Account(to) => (Some(to.0), None),
            Destination::Item(item) => (None, Some(item.0)),
        };
        self.numbers.push(number.0);
        self.from_ids.push(from.map(|from| from.0));
        self.to_ids.push(to);
        self.item_ids.push(item);
        self.amounts.push(amount.get());
    }
}
