-- Places holds and captures each of them: every second request is a capture.
local common = require("common")
local placements, captures = {}, {}
local first, last = 1, 0

function init()
   placements = common.for_each_account(function(id)
      return common.post("/v1/accounts/" .. id .. "/holds", '{"amount":1}')
   end)
end

function request()
   if first > last then
      return placements[common.any_account()]
   end
   local capture = captures[first]
   captures[first] = nil
   first = first + 1
   return capture
end

function response(status, headers, body)
   local hold, account = common.placed_hold(body)
   if hold then
      last = last + 1
      captures[last] = common.post("/v1/accounts/" .. account .. "/holds/" .. hold .. "/capture", "{}")
   end
end
