-- Deposits spread over as many accounts as the first argument says: too many to make the requests beforehand.
-- By hand: wrk -t1 -c32 -d10s -s deposits_spread.lua http://127.0.0.1:8080 -- 1000000
local common = require("common")
local accounts, head, tail

function init(arguments)
   accounts = tonumber(arguments[1])
   local marker = common.account_id(0)
   head, tail = common.around(common.deposit(marker), marker)
end

function request()
   return head .. common.account_id(math.random(accounts)) .. tail
end
