-- Transfers between two random accounts.
local common = require("common")
local ids, head, tail

function init()
   ids = common.for_each_account(function(id) return id end)
   local between = ids[1] .. '","to":"' .. ids[2]
   local body = '{"from":"' .. between .. '","amount":1}'
   head, tail = common.around(common.post("/v1/transfers", body), between)
end

function request()
   local from, to = common.two_accounts()
   return head .. ids[from] .. '","to":"' .. ids[to] .. tail
end
