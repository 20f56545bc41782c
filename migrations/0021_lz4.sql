-- Large values are compressed with LZ4 where the server has it, because it takes a fraction of the CPU time of the server's own method:
-- snapshots and lists of accounts with many holds. Stored values stay readable.
DO $$
BEGIN
    ALTER TABLE snapshot ALTER state SET COMPRESSION lz4;
    ALTER TABLE account_transaction ALTER holds SET COMPRESSION lz4;
    ALTER TABLE account_view ALTER holds SET COMPRESSION lz4;
EXCEPTION
    -- The server was built without LZ4.
    WHEN feature_not_supported THEN NULL;
END
$$;
