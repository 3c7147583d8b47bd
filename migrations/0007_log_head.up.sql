-- One series of numbers for all append-only rows, the two facts that movements of a company's
-- administration add, and the six shapes of a movement. Replicas of the release before this
-- one keep selling meanwhile and afterwards.

-- Nothing here needs longer; who waits for a lock of the history keeps everybody out of it.
-- Refused, the migration is tried again.
SET LOCAL lock_timeout = '200ms';

-- The newest number, moved on by every transaction that appends rows, before it does. Rows up
-- to a committed head are there. The epoch is another one where numbers may come again.
CREATE TABLE log_head (
    single boolean NOT NULL DEFAULT true,
    epoch  uuid NOT NULL DEFAULT gen_random_uuid(),
    id     bigint NOT NULL,
    CONSTRAINT log_head_pkey PRIMARY KEY (single),
    CONSTRAINT log_head_one_row CHECK (single)
) WITH (fillfactor = 10);

-- For replicas of the release before, which do not number their rows.
CREATE FUNCTION log_head_next() RETURNS bigint LANGUAGE sql
BEGIN ATOMIC
    UPDATE log_head SET id = log_head.id + 1 WHERE single RETURNING log_head.id;
END;

ALTER TABLE idempotency_keys ADD COLUMN number bigint;

LOCK TABLE writer_turn IN EXCLUSIVE MODE;
LOCK TABLE history IN ACCESS EXCLUSIVE MODE;

-- A grant comes from nobody, a correction goes to nobody, a transfer goes from one user to
-- another, a purchase goes to an item. A refund undoes a purchase, a reversal undoes a
-- transfer: `ref` is what they undo. `actor_id` is who acted, if not the owner of the coins.
ALTER TABLE history ALTER COLUMN id DROP IDENTITY;
ALTER TABLE history
    ALTER COLUMN id SET DEFAULT log_head_next(),
    ADD COLUMN ref bigint,
    ADD COLUMN actor_id bigint,
    DROP CONSTRAINT history_grant_transfer_or_purchase,
    ADD CONSTRAINT history_shape CHECK (
        CASE WHEN ref IS NULL
            THEN CASE WHEN item_id IS NULL
                THEN from_id IS NOT NULL OR to_id IS NOT NULL
                ELSE from_id IS NOT NULL AND to_id IS NULL
            END
            ELSE to_id IS NOT NULL AND (item_id IS NULL) = (from_id IS NOT NULL)
        END
    ) NOT VALID;

INSERT INTO log_head (id) SELECT coalesce(max(id), 0) FROM history;
