-- Deposits spread over a number of accounts, the first argument. It is too large to create the requests in advance.
-- To run it by hand: wrk -t1 -c32 -d10s -s deposits_spread.lua http://127.0.0.1:8080 -- 1000000
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
