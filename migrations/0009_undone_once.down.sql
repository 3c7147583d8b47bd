-- no-transaction
DROP INDEX CONCURRENTLY IF EXISTS history_ref_key;
