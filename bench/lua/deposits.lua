-- Deposits spread over all accounts.
local common = require("common")
local requests

function init()
   requests = common.for_each_account(common.deposit)
end

function request()
   return requests[common.any_account()]
end
