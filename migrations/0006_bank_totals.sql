-- The bank's totals: accounts by status and money, by currency. New to a log, they are built beside what serves and go live
-- once they have caught up.

-- One row a currency. Many accounts together may hold more than bigint does.
-- "event_count" is what the check before going live rests on: every event is counted in one of the rows.
-- fillfactor leaves room for HOT updates: every batch of events changes a row.
CREATE TABLE bank_total (
    partition   smallint       NOT NULL,
    generation  smallint       NOT NULL,
    currency    text           NOT NULL,
    open        bigint         NOT NULL,
    frozen      bigint         NOT NULL,
    closed      bigint         NOT NULL,
    money       numeric(38, 0) NOT NULL,
    event_count bigint         NOT NULL,
    PRIMARY KEY (partition, generation, currency)
) WITH (fillfactor = 50);
