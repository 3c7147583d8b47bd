-- no-transaction
-- A movement is undone once, whoever tries.
CREATE UNIQUE INDEX CONCURRENTLY history_ref_key ON history (ref) WHERE ref IS NOT NULL;
