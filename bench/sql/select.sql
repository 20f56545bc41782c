-- Selects one account by key.
\set account random(1, 5000)
SELECT account_id, owner, currency, status, balance, version, transaction_count,
       opened_at, last_activity_at, closed_at
FROM account
WHERE partition = 0
  AND generation = 1
  AND account_id = ('be7c0000-0000-4000-8000-' || lpad(to_hex(:account::int), 12, '0'))::uuid;
