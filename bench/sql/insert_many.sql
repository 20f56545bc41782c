INSERT INTO event
SELECT 0, n, gen_random_uuid(), ('be7c0000-0000-4000-8000-' || lpad(to_hex(n % 5000 + 1), 12, '0'))::uuid,
       n, 'MoneyDeposited', 1, '{"amount": 1}',
       '{"user_id": "anonymous","correlation_id": "0190d2a4-7f1e-7c3a-9b58-3f6f0a9d4e21","causation_id": null}',
       now(), sha256(n::text::bytea)
FROM generate_series(1, :events) AS n;
