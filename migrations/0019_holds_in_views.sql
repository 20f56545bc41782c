-- Holds, limits, reversals and metadata in the views. The columns stay null for accounts and events without them.

-- The limits (null: none), the holds without a recorded end (null: none) and the metadata (null: none) of the account. A row of an
-- older release is right as it is: an older release cannot apply an event that changes them, and its updates leave them alone.
ALTER TABLE account_view ADD COLUMN limits json;
ALTER TABLE account_view ADD COLUMN holds json;
ALTER TABLE account_view ADD COLUMN metadata json;
-- The sums that left the account in the current day and month. From schema version 2 of the view on.
ALTER TABLE account_view ADD COLUMN usage json;

-- They follow from the event of the row alone, so a row of an older release is right as it is.
ALTER TABLE account_transaction ADD COLUMN hold_id uuid;
ALTER TABLE account_transaction ADD COLUMN reverses_version bigint;
ALTER TABLE account_transaction ADD COLUMN metadata json;
-- From schema version 3 of the view on, as an older release reads and writes none of the columns below. It can write the row of any
-- later event into a live generation of version 2, without the overdraft and the holds of the rows before.
ALTER TABLE account_transaction ADD COLUMN channel text;
-- The overdraft after the event (null: 0).
ALTER TABLE account_transaction ADD COLUMN overdraft bigint;
-- The last version up to this one that changed a hold (null: none). The row of that version has the holds that had no recorded end
-- then. So the holds of any moment are two look-ups away, and other events do not repeat them.
ALTER TABLE account_transaction ADD COLUMN holds_version bigint;
ALTER TABLE account_transaction ADD COLUMN holds json;

-- One row for each movement that was reversed: the sum of its reversals. It belongs to the view of transactions, whose rows never
-- change.
CREATE TABLE reversed_movement (
    partition  smallint NOT NULL,
    generation smallint NOT NULL,
    account_id uuid     NOT NULL,
    version    bigint   NOT NULL,
    reversed   bigint   NOT NULL,
    PRIMARY KEY (partition, generation, account_id, version)
);

-- One row for each hold. "version" is that of its placement, which the id of the hold contains. "status" is as recorded: a hold whose
-- time is over is active until its expiry is recorded, and queries compare "expires_at" with their own moment.
CREATE TABLE account_hold (
    partition  smallint    NOT NULL,
    generation smallint    NOT NULL,
    account_id uuid        NOT NULL,
    version    bigint      NOT NULL,
    hold_id    uuid        NOT NULL,
    currency   text        NOT NULL,
    status     text        NOT NULL,
    amount     bigint      NOT NULL,
    captured   bigint      NOT NULL,
    placed_at  timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    reference  text,
    metadata   json,
    PRIMARY KEY (partition, generation, account_id, version)
);

-- Both conditions always hold. A statement that does not repeat the one of an index cannot be planned through it.
CREATE INDEX account_hold_status ON account_hold (partition, generation, status, account_id, version)
    WHERE generation > 0;
CREATE INDEX account_hold_due ON account_hold (partition, generation, expires_at)
    WHERE status = 'active' AND amount > 0;

-- For each currency, the sum that holds without a recorded end set aside. It belongs to the view of holds.
-- fillfactor leaves room for HOT updates: every batch with events of holds changes a row.
CREATE TABLE held_total (
    partition  smallint       NOT NULL,
    generation smallint       NOT NULL,
    currency   text           NOT NULL,
    held       numeric(38, 0) NOT NULL,
    PRIMARY KEY (partition, generation, currency)
) WITH (fillfactor = 50);
