-- Deposits to one account.
local common = require("common")
local deposit

function init()
   deposit = common.deposit(common.account_id(1))
end

function request()
   return deposit
end
