-- For wrk: sends what a file lists, again and again, and prints a line of JSON at the end: how
-- often each kind of request was answered with which status, and how long that took (microseconds).
--
-- Arguments: the file, of which each line has a kind, a path, and a token if there is one; how many
-- threads there are; for how long a connection rests before each request, in milliseconds.
-- Each thread must have one connection: wrk does not say which request an answer belongs to.
local threads = {}

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(args)
  local size, rest = tonumber(args[2]), tonumber(args[3])
  local line_number = 0
  counts, requests, at = {}, {}, 0
  for line in io.lines(args[1]) do
    if line_number % size == number then
      local kind, path, token = line:match("^(%S+) (%S+) ?(%S*)$")
      local headers = {}
      if token ~= "" then
        headers["Authorization"] = "Bearer " .. token
      end
      table.insert(requests, { kind, wrk.format("GET", path, headers) })
    end
    line_number = line_number + 1
  end
  if rest > 0 then
    math.randomseed(number)
    -- Not all at the same moment, as they would be after rests of the same length.
    function delay()
      return rest * (0.5 + math.random())
    end
  end
end

function request()
  at = at % #requests + 1
  kind = requests[at][1]
  return requests[at][2]
end

function response(status, _, _)
  local name = kind .. " " .. status
  counts[name] = (counts[name] or 0) + 1
end

function done(summary, latency, _)
  local all = {}
  for _, thread in ipairs(threads) do
    for name, number in pairs(thread:get("counts")) do
      all[name] = (all[name] or 0) + number
    end
  end
  local parts = {}
  for name, number in pairs(all) do
    table.insert(parts, string.format('"%s": %d', name, number))
  end
  local errors = summary.errors
  print(string.format(
    '{"errors": %d, "p50": %d, "p99": %d, "max": %d, "counts": {%s}}',
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency.max, table.concat(parts, ", ")
  ))
end
