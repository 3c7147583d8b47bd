-- Limits of gateways' clients, for those that have one of their own, and a version that
-- every change moves on: gateways poll it.

CREATE TABLE client_limits (
    client_id    text COLLATE "C" NOT NULL,
    capacity     integer NOT NULL,
    rate_per_sec integer NOT NULL,
    CONSTRAINT client_limits_pkey PRIMARY KEY (client_id),
    CONSTRAINT client_limits_client_id_length CHECK (octet_length(client_id) BETWEEN 1 AND 255),
    CONSTRAINT client_limits_capacity_range CHECK (capacity BETWEEN 1 AND 1000000),
    CONSTRAINT client_limits_rate_range CHECK (rate_per_sec BETWEEN 1 AND 1000000)
);

CREATE TABLE client_limits_version (
    single  boolean NOT NULL DEFAULT true,
    version bigint NOT NULL,
    CONSTRAINT client_limits_version_pkey PRIMARY KEY (single),
    CONSTRAINT client_limits_version_one_row CHECK (single)
) WITH (fillfactor = 50);
INSERT INTO client_limits_version (version) VALUES (0);
