-- For wrk: counts the statuses of the answers, and prints a line of JSON at the end.
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(_)
  counts = {}
end

function response(status, _, _)
  local name = tostring(status)
  counts[name] = (counts[name] or 0) + 1
end

function done(summary, _, _)
  local all = {}
  for _, thread in ipairs(threads) do
    for status, number in pairs(thread:get("counts")) do
      all[status] = (all[status] or 0) + number
    end
  end
  local errors = summary.errors
  local parts = { '"errors": ' .. errors.connect + errors.read + errors.write + errors.timeout }
  for status, number in pairs(all) do
    table.insert(parts, '"' .. status .. '": ' .. number)
  end
  print("{" .. table.concat(parts, ", ") .. "}")
end
