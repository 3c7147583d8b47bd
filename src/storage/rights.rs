//! What a role must be allowed to do to serve: rows only, on tables that somebody else owns.

use super::StorageError;
use super::session::Session;

/// What is done to each table; `docs/DATABASE.md` has the same as GRANTs.
const NEEDED: [(&str, &[&str]); 13] = [
    // One that came here in a dump is renewed.
    ("identity", &["SELECT", "UPDATE"]),
    ("users", &["SELECT", "INSERT"]),
    ("balance", &["SELECT", "INSERT", "UPDATE"]),
    ("inventory", &["SELECT", "INSERT", "UPDATE"]),
    ("history", &["SELECT", "INSERT"]),
    ("log_head", &["SELECT", "UPDATE"]),
    ("merch", &["SELECT"]),
    ("idempotency_keys", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("writers", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    // To lock it; it is empty.
    ("writer_turn", &["UPDATE"]),
    ("client_limits", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("client_limits_version", &["SELECT", "UPDATE"]),
    ("_sqlx_migrations", &["SELECT"]),
];

/// What of that the session's role may not do, as in "INSERT on users".
pub(super) async fn missing(session: &mut Session) -> Result<Vec<String>, StorageError> {
    let (tables, rights): (Vec<String>, Vec<String>) = NEEDED
        .iter()
        .flat_map(|(table, rights)| {
            rights.iter().map(|right| (table.to_string(), right.to_string()))
        })
        .unzip();
    let asking = session.ask(move |statements| {
        let sql = "SELECT right_needed || ' on ' || table_name
                   FROM unnest($1::text[], $2::text[]) AS needed (table_name, right_needed)
                   WHERE NOT has_table_privilege(table_name, right_needed)
                   UNION ALL
                   SELECT 'USAGE on users_id_seq'
                   WHERE NOT has_sequence_privilege('users_id_seq', 'USAGE')";
        Box::pin(sqlx::query_scalar(sql).bind(tables).bind(rights).fetch_all(statements))
    });
    asking.await
}
