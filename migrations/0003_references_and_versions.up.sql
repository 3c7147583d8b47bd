-- The history's references, checked a batch at a time instead of a row at a time, and a
-- version on each balance. docs/decisions/0011 says why.

-- A row's look-ups by foreign key were a third of what a movement cost. A batch writes the
-- balance of every account that its entries name and counts them, and `balance` refers to
-- `users`; it writes the inventory of every item that it sells, and `inventory` refers to
-- `merch`. Who is named in the history stays: see the triggers below.
ALTER TABLE history
    DROP CONSTRAINT history_from_fkey,
    DROP CONSTRAINT history_to_fkey,
    DROP CONSTRAINT history_item_fkey;

-- One more with every movement into or out of an account: whoever has seen a version has
-- seen the coins, the inventory and the history that belong to it. Versions start at the time
-- in milliseconds, which they never catch up with: none comes again if this is reverted and
-- applied anew under replicas that remember.
ALTER TABLE balance ADD COLUMN version bigint NOT NULL
    DEFAULT (extract(epoch FROM now()) * 1000)::bigint;

-- Off the shop's way: it never does what these refuse.
CREATE FUNCTION history_refers_to_it() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of "%", their numbers and their names are kept for ever', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation',
              HINT = 'The history refers to them by number, replicas remember them by name.';
END $$;
CREATE TRIGGER users_are_kept BEFORE DELETE OR UPDATE OF id, username ON users
    FOR EACH ROW EXECUTE FUNCTION history_refers_to_it();
CREATE TRIGGER users_are_not_truncated BEFORE TRUNCATE ON users
    FOR EACH STATEMENT EXECUTE FUNCTION history_refers_to_it();
CREATE TRIGGER merch_is_kept BEFORE DELETE OR UPDATE OF id, name ON merch
    FOR EACH ROW EXECUTE FUNCTION history_refers_to_it();
CREATE TRIGGER merch_is_not_truncated BEFORE TRUNCATE ON merch
    FOR EACH STATEMENT EXECUTE FUNCTION history_refers_to_it();
