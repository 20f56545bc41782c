-- The read tables: what the projector keeps for the queries. Everything here can be rebuilt from the log.
--
-- "generation" lets a rebuild fill the next version of a view beside the live one.

-- How far each view has read, and which of its generations answers queries. Moves in the transaction of the rows.
CREATE TABLE projection (
    partition      smallint NOT NULL,
    name           text     NOT NULL,
    generation     smallint NOT NULL,
    schema_version smallint NOT NULL,
    state          text     NOT NULL CHECK (state IN ('building', 'live')),
    position       bigint   NOT NULL,
    failure        text,
    PRIMARY KEY (partition, name, generation)
);

-- One live generation a view.
CREATE UNIQUE INDEX projection_live_key ON projection (partition, name) WHERE state = 'live';

-- fillfactor leaves room for HOT updates: no indexed column changes with the balance.
CREATE TABLE account_view (
    partition         smallint    NOT NULL,
    generation        smallint    NOT NULL,
    account_id        uuid        NOT NULL,
    owner             text        NOT NULL,
    currency          text        NOT NULL,
    status            text        NOT NULL,
    balance           bigint      NOT NULL,
    version           bigint      NOT NULL,
    transaction_count bigint      NOT NULL,
    opened_at         timestamptz NOT NULL,
    last_activity_at  timestamptz NOT NULL,
    closed_at         timestamptz,
    PRIMARY KEY (partition, generation, account_id)
) WITH (fillfactor = 70);

-- Lists: newest opening first, all of them or one owner's. The condition always holds; a statement that does not repeat
-- it, such as the look-up by key, cannot be planned through these indexes, however small the table was at that time.
CREATE INDEX account_view_opened ON account_view (partition, generation, opened_at, account_id)
    WHERE generation > 0;
CREATE INDEX account_view_owner ON account_view (partition, generation, owner, opened_at, account_id)
    WHERE generation > 0;

-- One row for each movement of money, with the balance after it.
CREATE TABLE account_transaction (
    partition               smallint    NOT NULL,
    generation              smallint    NOT NULL,
    account_id              uuid        NOT NULL,
    version                 bigint      NOT NULL,
    kind                    text        NOT NULL,
    amount                  bigint      NOT NULL,
    balance_after           bigint      NOT NULL,
    transfer_id             uuid,
    counterparty_account_id uuid,
    reference               text,
    recorded_at             timestamptz NOT NULL,
    event_id                uuid        NOT NULL,
    PRIMARY KEY (partition, generation, account_id, version)
);

-- A transfer is found by the side that sent it.
CREATE UNIQUE INDEX account_transaction_transfer ON account_transaction (partition, generation, transfer_id)
    WHERE kind = 'transfer_out';
