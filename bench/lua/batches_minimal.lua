-- Deposits in batches, each command by itself, with short results.
local batches = require("batches")

function init()
   batches.create("each", batches.deposit, { ["Prefer"] = "return=minimal" })
end
