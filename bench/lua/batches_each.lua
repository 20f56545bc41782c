-- Deposits in batches, each command by itself.
local batches = require("batches")

function init()
   batches.create("each", batches.deposit)
end
