-- Deposits spread over all accounts. wrk reads each response as `holds.lua` does, which takes it longer than to skip it.
local common = require("common")
local requests

function init()
   requests = common.for_each_account(common.deposit)
end

function request()
   return requests[common.any_account()]
end

function response(status, headers, body)
   common.placed_hold(body)
end
