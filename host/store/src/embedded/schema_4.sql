-- Version 4: leases are in the memory of the host, for they end with it; ids that are digests are not in one
-- large index.

-- `state` is never 1, `stage` never 2, and `back`, `lease` and `lease_until` are always NULL from here on. The
-- columns stay: to drop them, all rows would have to be written.
UPDATE deliveries SET state = coalesce(back, 0), stage = 0, back = NULL, lease = NULL, lease_until = NULL
WHERE stage = 2;
DROP INDEX deliveries_leased;

-- Which lanes have room, and whose turn it is, is known to the host alone too.
DROP INDEX lanes_open;
UPDATE lanes SET ready = ready + in_flight WHERE in_flight <> 0;
ALTER TABLE lanes DROP COLUMN in_flight;
ALTER TABLE lanes DROP COLUMN open;
ALTER TABLE lanes DROP COLUMN served;
CREATE INDEX lanes_due ON lanes (tenant) WHERE ready > 0;
DROP TABLE settings;

-- A delivery whose id is the default one has that as its `name`, and as its `id`, which is unique, the numbers
-- of event and lane: see `names.rs`.
ALTER TABLE deliveries ADD COLUMN name TEXT;
CREATE INDEX deliveries_named ON deliveries (event >> 13, substr(name, 7, 11)) WHERE name IS NOT NULL;
DROP VIEW delivery_list;
CREATE VIEW delivery_list AS
SELECT coalesce(d.name, d.id) AS id,
       t.name AS tenant,
       e.id   AS event,
       e.type AS type,
       l.endpoint,
       CASE d.state WHEN 0 THEN 'pending' WHEN 2 THEN 'failed' WHEN 3 THEN 'succeeded' ELSE 'dead_letter' END
           AS state,
       d.attempt,
       datetime(d.next_at / 1000000000, 'unixepoch') AS next_at,
       datetime(d.created_at / 1000000000, 'unixepoch') AS created_at,
       datetime(d.updated_at / 1000000000, 'unixepoch') AS updated_at
FROM deliveries d
JOIN tenants t ON t.id = d.tenant
JOIN lanes l ON l.id = d.lane
JOIN events e ON e.seq = d.event;
