-- What each account had, day by day. New to a log, it is built beside what serves and goes live once it has caught up.

-- One row for each day (UTC) on which money moved. Closing is what the next row opens with. What came in over a day may pass
-- what one balance may hold, and bigint: the same money can come and go many times.
-- fillfactor leaves room for HOT updates: today's row changes with every movement, and no indexed column of it.
CREATE TABLE daily_balance (
    partition  smallint       NOT NULL,
    generation smallint       NOT NULL,
    account_id uuid           NOT NULL,
    day        date           NOT NULL,
    opening    bigint         NOT NULL,
    money_in   numeric(38, 0) NOT NULL,
    money_out  numeric(38, 0) NOT NULL,
    closing    bigint         NOT NULL,
    count      bigint         NOT NULL,
    PRIMARY KEY (partition, generation, account_id, day)
) WITH (fillfactor = 80);
