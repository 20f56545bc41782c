-- The trial balance of the books: what was debited and credited to each ledger account, by day and currency. New to a log, the view
-- is built beside those that serve and goes live once it has caught up.

-- One row for each UTC day, currency and ledger account with postings: at most seven rows a day and currency. The trial balance at
-- the end of a day is the sum of all rows up to it, so a day that is over keeps its sums whatever is recorded later. "event_count"
-- is in the rows of customers' deposits: each event is counted in the row of its day and currency, also if it moves no money. The
-- check before going live rests on it, as on equal sums of debits and credits. The key begins with the day, so that a day's rows
-- lie together. fillfactor leaves room for HOT updates: today's rows change with every batch of events.
CREATE TABLE ledger_total (
    partition      smallint       NOT NULL,
    generation     smallint       NOT NULL,
    day            date           NOT NULL,
    currency       text           NOT NULL,
    ledger_account text           NOT NULL,
    debit          numeric(38, 0) NOT NULL,
    credit         numeric(38, 0) NOT NULL,
    event_count    bigint         NOT NULL,
    PRIMARY KEY (partition, generation, day, currency, ledger_account)
) WITH (fillfactor = 50);
