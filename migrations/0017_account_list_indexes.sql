-- Indexes for lists of accounts with one selective filter. Each is built in about a second per million accounts. Meanwhile the
-- projector waits; commands do not, because they write no view.

-- Most accounts are open, so only the others are in the index. A movement of money changes no row of it.
CREATE INDEX account_view_status ON account_view (partition, generation, status, opened_at, account_id)
    WHERE generation > 0 AND status <> 'open';
-- An account has one currency for life: one entry per account.
CREATE INDEX account_view_currency ON account_view (partition, generation, currency, opened_at, account_id)
    WHERE generation > 0;
