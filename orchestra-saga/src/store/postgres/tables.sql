CREATE TABLE {schema}.layout (
    number integer NOT NULL,
    -- What is added to transaction numbers, so that they grow also over a move to another server.
    base bigint NOT NULL,
    -- At least the greatest place given when a store was last opened.
    seen bigint NOT NULL
);
INSERT INTO {schema}.layout VALUES ({layout}, 0, 0);

CREATE TABLE {schema}.partition (
    id integer PRIMARY KEY,
    epoch bigint NOT NULL,
    owner text NOT NULL,
    -- Infinity for a claim, -infinity once given up.
    until timestamptz NOT NULL
);

-- Half of each page is left to the next versions of its rows: what changes with every append is in no index, so
-- such an update stays in its page and touches no index.
CREATE TABLE {schema}.saga (
    id uuid PRIMARY KEY,
    version bigint NOT NULL,
    updated bigint NOT NULL,
    wake bigint,
    ended bigint,
    partition integer NOT NULL,
    status smallint NOT NULL,
    definition text NOT NULL,
    start_key text UNIQUE
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX saga_open ON {schema}.saga (partition, id) WHERE ended IS NULL;
CREATE INDEX saga_ended ON {schema}.saga (partition, ended) WHERE ended IS NOT NULL;
CREATE INDEX saga_wake ON {schema}.saga (partition, wake, id) WHERE wake IS NOT NULL;

-- One row per append. `version` is that after its last event; `tx` and `place` are its place among all appends.
CREATE TABLE {schema}.frame (
    saga uuid NOT NULL,
    version bigint NOT NULL,
    tx bigint NOT NULL,
    epoch bigint NOT NULL,
    at bigint NOT NULL,
    place integer NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (saga, version)
);
CREATE INDEX frame_stream ON {schema}.frame (tx, place);

CREATE TABLE {schema}.snapshot (
    saga uuid PRIMARY KEY,
    version bigint NOT NULL,
    hash bytea NOT NULL,
    body bytea NOT NULL
);

CREATE TABLE {schema}.definition (
    hash text PRIMARY KEY,
    document text NOT NULL
);
