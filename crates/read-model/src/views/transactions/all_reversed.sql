SELECT account_id, version, reversed
FROM reversed_movement
WHERE partition = $1 AND generation = $2 AND ($3::uuid[] IS NULL OR account_id = ANY($3))
