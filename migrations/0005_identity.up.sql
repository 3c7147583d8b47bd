-- Which database this is: tokens name it, so that one of another database opens nothing here.
-- docs/decisions/0020 says why.

CREATE TABLE identity (
    single       boolean NOT NULL DEFAULT true,
    id           uuid NOT NULL DEFAULT gen_random_uuid(),
    -- When it was renewed; tokens that name no database are valid from then on only.
    renewed_at   timestamptz,
    -- Where it was made, by numbers that a copy of the row does not share: those of a database
    -- and a table are not dumped. A row that is not at home was restored, and is renewed.
    database_oid oid NOT NULL,
    table_oid    oid NOT NULL,
    CONSTRAINT identity_pkey PRIMARY KEY (single),
    CONSTRAINT identity_one_row CHECK (single)
);
INSERT INTO identity (database_oid, table_oid)
SELECT pg_database.oid, 'identity'::regclass
FROM pg_database WHERE datname = current_database();
