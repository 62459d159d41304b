-- Version 2: what a producer may ask of the delivery of an event.

-- When the event's deliveries become due, in nanoseconds; NULL is at once.
ALTER TABLE events ADD COLUMN deliver_at INTEGER;
