-- GET requests for one account by id, spread over all accounts.
local common = require("common")
local requests

function init()
   requests = common.for_each_account(function(id)
      return wrk.format("GET", "/v1/accounts/" .. id)
   end)
end

function request()
   return requests[common.any_account()]
end
