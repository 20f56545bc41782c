-- Shared by the scripts with batches of 100 commands: bodies that are created in advance, and a check of the results.
-- To run one by hand: cd bench/lua && wrk -t1 -c8 -d10s -s batches_each.lua http://127.0.0.1:8080
local common = require("common")

local batches = {}
local commands_per_batch = 100
local requests = {}

-- The number of batches with a refused command; `done` in `common.lua` reads it.
refused_batches = 0

function batches.deposit()
   local id = common.account_id(common.any_account())
   return '{"command":"deposit","account_id":"' .. id .. '","amount":1}'
end

function batches.transfer()
   local from, to = common.two_accounts()
   return '{"command":"transfer","from":"' .. common.account_id(from)
      .. '","to":"' .. common.account_id(to) .. '","amount":1}'
end

-- Creates 500 requests, so that wrk spends its time on sending.
function batches.create(mode, make, headers)
   for n = 1, 500 do
      local commands = {}
      for m = 1, commands_per_batch do
         commands[m] = make()
      end
      local body = '{"mode":"' .. mode .. '","commands":[' .. table.concat(commands, ",") .. "]}"
      requests[n] = common.post("/v1/batches", body, headers)
   end
end

function setup(thread)
   table.insert(common.threads, thread)
end

function request()
   return requests[math.random(#requests)]
end

-- The status of `each` is 200 even if commands are refused. Only the result of a refused command has a member `code`.
-- The search is for `code":` because a quotation mark at its beginning would occur too often.
function response(status, headers, body)
   if status == 200 and string.find(body, 'code":', 1, true) then
      refused_batches = refused_batches + 1
   end
end

return batches
