-- Version 4: leases are in the memory of the host, for they end with it.

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
