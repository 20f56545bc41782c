-- Deposits spread over all accounts, each with a new Idempotency-Key.
local common = require("common")
local marker = "key-of-this-request"
local heads, tails, prefix, sent = {}, {}, "", 0

function init()
   local requests = common.for_each_account(function(id)
      return common.deposit(id, { ["Idempotency-Key"] = marker })
   end)
   for n, text in ipairs(requests) do
      heads[n], tails[n] = common.around(text, marker)
   end
   prefix = os.time() .. "-"
end

function request()
   local n = common.any_account()
   sent = sent + 1
   return heads[n] .. prefix .. sent .. tails[n]
end
