-- Version 1. Times are nanoseconds since 1970-01-01 UTC unless they are texts.

-- One row, so that the bound is known wherever a lane changes, in whatever process.
CREATE TABLE settings (
    id               INTEGER PRIMARY KEY CHECK (id = 1),
    max_per_endpoint INTEGER NOT NULL
);
INSERT INTO settings VALUES (1, 9223372036854775807);

CREATE TABLE tenants (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

-- One endpoint of one tenant, with how many of its deliveries are at which stage. `open` says that
-- it has ready deliveries and room for one more in flight; `served` orders the open lanes of a
-- tenant: who was served longest ago is next. A lane without deliveries is removed.
CREATE TABLE lanes (
    id          INTEGER PRIMARY KEY,
    tenant      INTEGER NOT NULL REFERENCES tenants (id),
    endpoint    TEXT    NOT NULL,
    ready       INTEGER NOT NULL DEFAULT 0,
    delayed     INTEGER NOT NULL DEFAULT 0,
    in_flight   INTEGER NOT NULL DEFAULT 0,
    succeeded   INTEGER NOT NULL DEFAULT 0,
    dead_letter INTEGER NOT NULL DEFAULT 0,
    open        INTEGER NOT NULL DEFAULT 0,
    served      INTEGER NOT NULL DEFAULT 0,
    UNIQUE (tenant, endpoint)
);
CREATE INDEX lanes_open ON lanes (tenant, served) WHERE open;

-- `bare` events have no delivery (yet); they are kept only so that they are known.
CREATE TABLE events (
    seq         INTEGER PRIMARY KEY,
    tenant      INTEGER NOT NULL REFERENCES tenants (id),
    id          TEXT    NOT NULL,
    type        TEXT    NOT NULL,
    occurred_at TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    bare        INTEGER NOT NULL,
    payload     BLOB    NOT NULL,
    UNIQUE (tenant, id)
);
CREATE INDEX events_bare ON events (created_at) WHERE bare;

-- state: 0 pending, 1 leased, 2 failed, 3 succeeded, 4 dead_letter.
-- stage: 0 ready, 1 delayed until `next_at`, 2 leased, 3 finished.
-- back:  the state before the lease, for a lease that expires or is released.
CREATE TABLE deliveries (
    seq                 INTEGER PRIMARY KEY,
    id                  TEXT    NOT NULL,
    tenant              INTEGER NOT NULL REFERENCES tenants (id),
    lane                INTEGER NOT NULL REFERENCES lanes (id),
    event               INTEGER NOT NULL REFERENCES events (seq),
    state               INTEGER NOT NULL,
    stage               INTEGER NOT NULL,
    back                INTEGER,
    attempt             INTEGER NOT NULL,
    replayed_at_attempt INTEGER NOT NULL,
    next_at             INTEGER NOT NULL,
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL,
    lease               INTEGER,
    lease_until         INTEGER,
    resolved            BLOB,
    resolver            BLOB,
    UNIQUE (tenant, id)
);
CREATE INDEX deliveries_ready ON deliveries (lane, next_at) WHERE stage = 0;
CREATE INDEX deliveries_delayed ON deliveries (next_at) WHERE stage = 1;
CREATE INDEX deliveries_leased ON deliveries (lease_until) WHERE stage = 2;
CREATE INDEX deliveries_finished ON deliveries (tenant, updated_at) WHERE stage = 3;
-- A delivery enters the index of its tenant once; those of other indexes it enters and leaves as it goes.
CREATE INDEX deliveries_tenant ON deliveries (tenant);
CREATE INDEX deliveries_troubled ON deliveries (tenant, state) WHERE state IN (2, 4);
CREATE INDEX deliveries_event ON deliveries (event);

CREATE TABLE attempts (
    delivery         INTEGER NOT NULL,
    number           INTEGER NOT NULL,
    at               TEXT    NOT NULL,
    duration_ms      INTEGER NOT NULL,
    outcome          TEXT    NOT NULL,
    status_code      INTEGER,
    retryable        INTEGER NOT NULL,
    error_class      TEXT,
    error            TEXT,
    plugins          BLOB,
    response_excerpt TEXT,
    next_at          TEXT,
    PRIMARY KEY (delivery, number)
) WITHOUT ROWID;

CREATE TABLE rejected (
    seq           INTEGER PRIMARY KEY,
    at            TEXT    NOT NULL,
    source        TEXT    NOT NULL,
    event_id      TEXT    NOT NULL,
    tenant        TEXT    NOT NULL,
    type          TEXT    NOT NULL,
    payload_bytes INTEGER NOT NULL,
    code          TEXT    NOT NULL,
    reason        TEXT    NOT NULL
);

-- For whoever opens the file with an SQLite tool.
CREATE VIEW delivery_list AS
SELECT d.id,
       t.name AS tenant,
       e.id   AS event,
       e.type AS type,
       l.endpoint,
       CASE d.state WHEN 0 THEN 'pending' WHEN 1 THEN 'leased' WHEN 2 THEN 'failed'
                    WHEN 3 THEN 'succeeded' ELSE 'dead_letter' END AS state,
       d.attempt,
       datetime(d.next_at / 1000000000, 'unixepoch') AS next_at,
       datetime(d.created_at / 1000000000, 'unixepoch') AS created_at,
       datetime(d.updated_at / 1000000000, 'unixepoch') AS updated_at
FROM deliveries d
JOIN tenants t ON t.id = d.tenant
JOIN lanes l ON l.id = d.lane
JOIN events e ON e.seq = d.event;
