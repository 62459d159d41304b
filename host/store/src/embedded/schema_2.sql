-- Version 2: what a producer may ask of the delivery of an event, sequences, and quotas of tenants.

-- When the event's deliveries become due, in nanoseconds; NULL is at once.
ALTER TABLE events ADD COLUMN deliver_at INTEGER;
ALTER TABLE events ADD COLUMN ordering_key TEXT;

-- Deliveries of one lane with one `sequence` go one after the other, by `seq`; NULL is in none, and the
-- whole endpoint's has an empty name. A delivery that waits for its turn has stage 4, `behind`; a dead
-- letter that blocks has stage 5. In a sequence at most one delivery is ready, delayed, leased or blocks,
-- and exactly one while others are behind.
ALTER TABLE deliveries ADD COLUMN sequence TEXT;
ALTER TABLE deliveries ADD COLUMN blocks INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN max_attempts INTEGER;
CREATE INDEX deliveries_sequence ON deliveries (lane, sequence, stage)
    WHERE sequence IS NOT NULL AND stage <> 3;

ALTER TABLE lanes ADD COLUMN behind INTEGER NOT NULL DEFAULT 0;
ALTER TABLE lanes ADD COLUMN blocking INTEGER NOT NULL DEFAULT 0;

-- How many turns tenants get, and most deliveries in flight of those that have such a cap. By name, for a tenant without deliveries has no
-- number. A lane of a tenant that is at its cap is not open.
CREATE TABLE quotas (
    tenant        TEXT    PRIMARY KEY,
    weight        INTEGER NOT NULL,
    max_in_flight INTEGER
) WITHOUT ROWID;
