-- Deposits in batches, all or nothing.
local batches = require("batches")

function init()
   batches.create("atomic", batches.deposit)
end
