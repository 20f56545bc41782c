-- The log-head lock is held until the response is sent, so it contains only as many recorded keys as fit into its bytes. The next
-- attempt finds the others.
SELECT
    outcome AS "outcome!",
    caller AS "caller?",
    key AS "key?",
    fingerprint AS "fingerprint?",
    receipt AS "receipt?"
FROM append_batch_with_reversals(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
    $24, $25, $26, $27, $28, $29, $30
)
