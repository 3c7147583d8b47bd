-- Accounts, their coins, what they own and every movement there ever was.
-- Constraints are named: src/storage/error.rs knows them by these names.

CREATE SEQUENCE users_id_seq AS bigint;

CREATE TABLE users (
    id            bigint NOT NULL DEFAULT nextval('users_id_seq'),
    username      text COLLATE "C" NOT NULL,
    password_hash text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_username_key UNIQUE (username),
    CONSTRAINT users_username_length CHECK (char_length(username) BETWEEN 1 AND 255)
);

-- Apart from users because it changes with every movement and they never do; pages are
-- left half empty so that a new balance fits on the page of the old one.
CREATE TABLE balance (
    user_id bigint NOT NULL,
    coins   bigint NOT NULL,
    CONSTRAINT balance_pkey PRIMARY KEY (user_id),
    CONSTRAINT balance_user_fkey FOREIGN KEY (user_id) REFERENCES users (id),
    CONSTRAINT balance_coins_not_negative CHECK (coins >= 0)
) WITH (fillfactor = 50);

CREATE TABLE merch (
    id    smallint NOT NULL,
    name  text COLLATE "C" NOT NULL,
    price bigint NOT NULL,
    CONSTRAINT merch_pkey PRIMARY KEY (id),
    CONSTRAINT merch_name_key UNIQUE (name),
    CONSTRAINT merch_name_spelling CHECK (name ~ '^[a-z0-9-]{1,64}$'),
    CONSTRAINT merch_price_positive CHECK (price > 0)
);

CREATE TABLE inventory (
    user_id  bigint NOT NULL,
    item_id  smallint NOT NULL,
    quantity bigint NOT NULL,
    CONSTRAINT inventory_pkey PRIMARY KEY (user_id, item_id),
    CONSTRAINT inventory_user_fkey FOREIGN KEY (user_id) REFERENCES users (id),
    CONSTRAINT inventory_item_fkey FOREIGN KEY (item_id) REFERENCES merch (id),
    CONSTRAINT inventory_quantity_positive CHECK (quantity > 0)
) WITH (fillfactor = 70);

-- Append-only. A grant comes from nobody, a transfer goes from one user to another, a
-- purchase goes to an item.
CREATE TABLE history (
    id         bigint GENERATED ALWAYS AS IDENTITY,
    from_id    bigint,
    to_id      bigint,
    item_id    smallint,
    amount     bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT history_pkey PRIMARY KEY (id),
    CONSTRAINT history_from_fkey FOREIGN KEY (from_id) REFERENCES users (id),
    CONSTRAINT history_to_fkey FOREIGN KEY (to_id) REFERENCES users (id),
    CONSTRAINT history_item_fkey FOREIGN KEY (item_id) REFERENCES merch (id),
    CONSTRAINT history_amount_positive CHECK (amount > 0),
    CONSTRAINT history_not_to_oneself CHECK (from_id <> to_id),
    CONSTRAINT history_grant_transfer_or_purchase CHECK (
        (to_id IS NOT NULL AND item_id IS NULL)
        OR (from_id IS NOT NULL AND to_id IS NULL AND item_id IS NOT NULL)
    )
);

-- One index for each way that history is read, newest first; each row is only in those
-- that can find it.
CREATE INDEX history_sent_idx ON history (from_id, id)
    WHERE from_id IS NOT NULL AND item_id IS NULL;
CREATE INDEX history_received_idx ON history (to_id, id)
    WHERE from_id IS NOT NULL AND to_id IS NOT NULL;
CREATE INDEX history_purchases_idx ON history (from_id, id) WHERE to_id IS NULL;
CREATE INDEX history_grants_idx ON history (to_id, id) WHERE from_id IS NULL;

-- What a request with an Idempotency-Key came to: 'done' or the code of a refusal.
CREATE TABLE idempotency_keys (
    user_id     bigint NOT NULL,
    key         text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    outcome     text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (user_id, key),
    CONSTRAINT idempotency_keys_user_fkey FOREIGN KEY (user_id) REFERENCES users (id)
);
CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);

-- The last batch that each writer committed: how one whose connection broke at COMMIT
-- finds out what became of it.
CREATE TABLE writers (
    id         uuid NOT NULL,
    batch      bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT writers_pkey PRIMARY KEY (id)
) WITH (fillfactor = 50);

-- Always empty: writers lock it to take turns.
CREATE TABLE writer_turn (
    nothing boolean
);
