//! The peer: pgbench, one function call a transaction, serializable, on the same tables. It
//! has no HTTP, no JSON and no tokens to pay for.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use super::world::{PEOPLE, World};

/// Numbers of clients to try; the best counts.
pub const CLIENTS: [usize; 4] = [8, 16, 32, 64];

/// What one call does, by the name of its script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// A transfer and a purchase in turn, uniform users.
    Uniform,
    /// Transfers from anybody to user 1.
    Hot,
    /// The best single query for what `/api/info` shows.
    Info,
}

impl Script {
    /// Settings of its sessions: movements are serializable, a look is one statement, and so
    /// one snapshot anyway.
    fn session(self) -> &'static str {
        match self {
            Script::Uniform | Script::Hot => "-c default_transaction_isolation=serializable",
            Script::Info => "",
        }
    }
}

/// What pgbench printed. Like the shop, it tries ten times what another transaction got in
/// the way of.
#[derive(Clone, Copy, Debug)]
pub struct PeerResult {
    pub rate: f64,
    pub failed_percent: f64,
    pub clients: usize,
}

/// Functions that move coins the ordinary way. They number their rows by a sequence, as the
/// ordinary way is: a head of the log that each of them moves would be what all of them wait for.
const FUNCTIONS: &str = "
CREATE SEQUENCE IF NOT EXISTS peer_history_ids;
CREATE OR REPLACE FUNCTION peer_transfer(sender bigint, recipient bigint, moved bigint)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE balance SET coins = coins - moved, version = version + 1
    WHERE user_id = sender AND coins >= moved;
    IF NOT FOUND THEN RAISE EXCEPTION 'not enough coins'; END IF;
    UPDATE balance SET coins = coins + moved, version = version + 1
    WHERE user_id = recipient;
    INSERT INTO history (id, from_id, to_id, amount)
    VALUES (nextval('peer_history_ids'), sender, recipient, moved);
END $$;
CREATE OR REPLACE FUNCTION peer_purchase(buyer bigint, item smallint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE cost bigint;
BEGIN
    SELECT price INTO cost FROM merch WHERE id = item;
    UPDATE balance SET coins = coins - cost, version = version + 1
    WHERE user_id = buyer AND coins >= cost;
    IF NOT FOUND THEN RAISE EXCEPTION 'not enough coins'; END IF;
    INSERT INTO inventory (user_id, item_id, quantity) VALUES (buyer, item, 1)
    ON CONFLICT (user_id, item_id) DO UPDATE SET quantity = inventory.quantity + 1;
    INSERT INTO history (id, from_id, item_id, amount)
    VALUES (nextval('peer_history_ids'), buyer, item, cost);
END $$;
";

const INFO: &str = "
SELECT json_build_object(
    'coins', (SELECT coins FROM balance WHERE user_id = :me),
    'inventory', (SELECT coalesce(json_agg(json_build_object('type', name, 'quantity', quantity)), '[]')
                  FROM inventory JOIN merch ON merch.id = item_id WHERE user_id = :me),
    'received', (SELECT coalesce(json_agg(json_build_object('fromUser', username, 'amount', amount)), '[]')
                 FROM (SELECT from_id, amount FROM history
                       WHERE to_id = :me AND from_id IS NOT NULL
                       ORDER BY id DESC LIMIT 100) AS entry JOIN users ON users.id = from_id),
    'sent', (SELECT coalesce(json_agg(json_build_object('toUser', username, 'amount', amount)), '[]')
             FROM (SELECT to_id, amount FROM history
                   WHERE from_id = :me AND item_id IS NULL
                   ORDER BY id DESC LIMIT 100) AS entry JOIN users ON users.id = to_id));
";

/// Makes the functions.
pub async fn prepare(world: &World) -> anyhow::Result<()> {
    world.execute(FUNCTIONS).await
}

/// Runs `script` once with so many clients for `seconds`.
pub async fn run(
    world: &World,
    script: Script,
    clients: usize,
    seconds: u64,
    readers: u32,
) -> anyhow::Result<PeerResult> {
    let sender = format!("\\set me random(1, {PEOPLE})\n");
    let files: Vec<(&str, String)> = match script {
        Script::Uniform => vec![
            (
                "transfer",
                format!(
                    "{sender}\\set other random(1, {PEOPLE} - 1)\n\
                     \\set to 1 + (:me + :other - 1) % {PEOPLE}\n\
                     SELECT peer_transfer(:me, :to, 1);\n"
                ),
            ),
            (
                "purchase",
                format!(
                    "{sender}\\set item random(1, 10)\nSELECT peer_purchase(:me, :item::int2);\n"
                ),
            ),
        ],
        Script::Hot => {
            vec![(
                "hot",
                format!("\\set me random(2, {PEOPLE})\nSELECT peer_transfer(:me, 1, 1);\n"),
            )]
        }
        Script::Info => vec![("info", format!("\\set me random(1, {readers})\n{INFO}"))],
    };
    let folder = tempfile::tempdir()?;
    let mut pgbench = Command::new(program()?);
    // What libpq reads from the environment must not choose another server or session.
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.as_encoded_bytes().starts_with(b"PG"))
    {
        pgbench.env_remove(key);
    }
    let (clients_text, seconds) = (clients.to_string(), seconds.to_string());
    pgbench
        .args(["-n", "-M", "prepared", "-j", "2", "-c", &clients_text, "-T", &seconds])
        .args(["-h", world.socket_folder(), "-U", "merch", "--max-tries=10"])
        .env("PGOPTIONS", script.session());
    for (name, text) in files {
        let path = folder.path().join(format!("{name}.sql"));
        std::fs::write(&path, text)?;
        pgbench.arg("-f").arg(path);
    }
    // The peer and the shop run in turn, and number the rows of one table.
    world.execute("SELECT setval('peer_history_ids', greatest(id, 1)) FROM log_head").await?;
    let output = pgbench.arg("postgres").output()?;
    world
        .execute("UPDATE log_head SET id = (SELECT greatest(id, last_value) FROM peer_history_ids)")
        .await?;
    let text = String::from_utf8_lossy(&output.stdout);
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let number_after = |start: &str| {
        let rest = text.split_once(start)?.1;
        rest.split(|c: char| !c.is_ascii_digit() && c != '.').next()?.parse::<f64>().ok()
    };
    let rate = number_after("tps = ").context("pgbench prints its rate")?;
    let failed = number_after("number of failed transactions: ").unwrap_or(0.0);
    let processed = number_after("actually processed: ").unwrap_or(0.0);
    let failed_percent = 100.0 * failed / (failed + processed).max(1.0);
    Ok(PeerResult { rate, failed_percent, clients })
}

/// pgbench on the PATH, or where Debian keeps it.
fn program() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    folders.extend(debian.map(|version| version.path().join("bin")));
    let mut programs = folders.into_iter().map(|folder| folder.join("pgbench"));
    programs.find(|program| program.exists()).context("pgbench is missing: see scripts/bench")
}
