DROP TRIGGER users_are_kept ON users;
DROP TRIGGER users_are_not_truncated ON users;
DROP TRIGGER merch_is_kept ON merch;
DROP TRIGGER merch_is_not_truncated ON merch;
DROP FUNCTION history_refers_to_it;

ALTER TABLE balance DROP COLUMN version;

ALTER TABLE history
    ADD CONSTRAINT history_from_fkey FOREIGN KEY (from_id) REFERENCES users (id),
    ADD CONSTRAINT history_to_fkey FOREIGN KEY (to_id) REFERENCES users (id),
    ADD CONSTRAINT history_item_fkey FOREIGN KEY (item_id) REFERENCES merch (id);
