-- Appends one event. Each colon in the JSON is followed by a blank, because pgbench reads `:name` as a variable.
\set account random(1, 5000)
INSERT INTO event
VALUES (0, nextval('event_position'), gen_random_uuid(),
        ('be7c0000-0000-4000-8000-' || lpad(to_hex(:account::int), 12, '0'))::uuid,
        currval('event_position'), 'MoneyDeposited', 1, '{"amount": 1}',
        '{"user_id": "anonymous","correlation_id": "0190d2a4-7f1e-7c3a-9b58-3f6f0a9d4e21","causation_id": null}',
        now(), '\x9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08');
