-- Deposits spread over all accounts, with the bearer tokens in the file `tokens`, one per line.
local common = require("common")
local requests = {}

function init()
   local tokens = {}
   for token in io.lines("tokens") do
      tokens[#tokens + 1] = token
   end
   requests = common.for_each_account(function(id)
      return common.deposit(id, { ["Authorization"] = "Bearer " .. tokens[math.random(#tokens)] })
   end)
end

function request()
   return requests[common.any_account()]
end
