-- What the plugins of tenants keep.
CREATE TABLE key_values (
    tenant TEXT NOT NULL,
    key    BLOB NOT NULL,
    value  BLOB NOT NULL,
    -- When it ends, in nanoseconds since 1970; NULL: it does not.
    ends   INTEGER,
    PRIMARY KEY (tenant, key)
) WITHOUT ROWID;

CREATE INDEX key_values_ends ON key_values (tenant, ends) WHERE ends IS NOT NULL;

-- How much of it there is, ended keys that nobody removed yet included.
CREATE TABLE key_values_kept (
    tenant TEXT PRIMARY KEY,
    keys   INTEGER NOT NULL,
    bytes  INTEGER NOT NULL
) WITHOUT ROWID;
