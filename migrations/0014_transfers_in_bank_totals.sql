-- What transfers added to the money of a currency in one partition, less what they took. A transfer between two partitions
-- reaches their views at different moments; without this part the sum over all partitions is right at every moment.
-- From schema version 2 of the view on; 0 in rows of version 1.
ALTER TABLE bank_total ADD COLUMN transferred numeric NOT NULL DEFAULT 0;
