-- A stream whose last message was purged, or was too old for it, cannot tell any more which event stood there. This keeps the
-- hash of the last one that was published, so that a log of another history is noticed then, too.

-- "hash" is of the event at "hash_position": a release that does not know them moves "position" alone.
ALTER TABLE relay
    ADD COLUMN hash_position bigint,
    ADD COLUMN hash          bytea;
