SET LOCAL lock_timeout = '10s';
LOCK TABLE writer_turn IN EXCLUSIVE MODE;
LOCK TABLE history IN ACCESS EXCLUSIVE MODE;

-- The release before knows no refunds, reversals and corrections, and would read them as
-- something else.
ALTER TABLE history ADD CONSTRAINT history_is_of_the_release_before CHECK (
    ref IS NULL AND actor_id IS NULL AND (from_id IS NULL OR to_id IS NOT NULL OR item_id IS NOT NULL)
);
ALTER TABLE history
    DROP CONSTRAINT history_is_of_the_release_before,
    DROP CONSTRAINT history_shape,
    DROP COLUMN ref,
    DROP COLUMN actor_id,
    ALTER COLUMN id DROP DEFAULT,
    ADD CONSTRAINT history_grant_transfer_or_purchase CHECK (
        (to_id IS NOT NULL AND item_id IS NULL)
        OR (from_id IS NOT NULL AND to_id IS NULL AND item_id IS NOT NULL)
    );
ALTER TABLE history ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY;
SELECT setval(pg_get_serial_sequence('history', 'id'), greatest(id, 1), id > 0) FROM log_head;

ALTER TABLE idempotency_keys DROP COLUMN number;
DROP FUNCTION log_head_next();
DROP TABLE log_head;
