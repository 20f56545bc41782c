-- Shared by all scripts: the ids of the accounts that `bench run` opens, and the summary that it parses.
-- To run a script by hand: cd bench/lua && wrk -t1 -c32 -d10s -s deposits.lua http://127.0.0.1:8080

local common = {}

common.accounts = 5000

-- The threads whose `refused_batches` count; `batches.lua` sets both.
common.threads = {}

function common.account_id(n)
   return string.format("be7c0000-0000-4000-8000-%012x", n)
end

function common.any_account()
   return math.random(common.accounts)
end

function common.two_accounts()
   local first, second = common.any_account(), math.random(common.accounts - 1)
   if second >= first then
      second = second + 1
   end
   return first, second
end

-- Creates one request per account in advance, so that wrk spends its time on sending.
function common.for_each_account(make)
   local requests = {}
   for n = 1, common.accounts do
      requests[n] = make(common.account_id(n))
   end
   return requests
end

function common.post(path, body, headers)
   headers = headers or {}
   headers["Content-Type"] = "application/json"
   return wrk.format("POST", path, headers, body)
end

function common.deposit(id, headers)
   return common.post("/v1/accounts/" .. id .. "/deposits", '{"amount":1}', headers)
end

-- The ids of the hold and of its account in a response. Only a placement has an active hold in its response.
function common.placed_hold(body)
   return string.match(body, '"hold_id":"([^"]+)","account_id":"([^"]+)","status":"active"')
end

-- Splits a request around a marker. The text that replaces the marker must have the same length (Content-Length).
function common.around(request, marker)
   local first, last = string.find(request, marker, 1, true)
   return string.sub(request, 1, first - 1), string.sub(request, last + 1)
end

-- `refused` counts responses with a status above 399 and batches with a refused command. `broken` counts connections that
-- failed or timed out.
function done(summary, latency, requests)
   local errors = summary.errors
   local refused = errors.status
   for _, thread in ipairs(common.threads) do
      refused = refused + thread:get("refused_batches")
   end
   io.write(string.format(
      '{"requests":%d,"microseconds":%d,"p50_us":%d,"p99_us":%d,"refused":%d,"broken":%d}\n',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
      refused, errors.connect + errors.read + errors.write + errors.timeout))
end

return common
