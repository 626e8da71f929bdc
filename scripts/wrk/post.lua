-- POST /v1/assign with the bodies of a file, one a line, in turn.
--   wrk -t1 -c64 -d10s -s scripts/wrk/post.lua http://127.0.0.1:8080 -- [FILE]
-- FILE is tests/golden/typical.requests.ndjson unless given; start splitd with
-- the experiments beside it to repeat the figures of the README.
local requests = {}
local index = 0

function init(args)
  local name = args[1] or "tests/golden/typical.requests.ndjson"
  local file = assert(io.open(name), "cannot open " .. name)
  for body in file:lines() do
    if #body > 0 then
      requests[#requests + 1] = wrk.format("POST", "/v1/assign", { ["Content-Type"] = "application/json" }, body)
    end
  end
  file:close()
  assert(#requests > 0, name .. " holds no request")
end

function request()
  index = index % #requests + 1
  return requests[index]
end

function done(summary, latency)
  io.write(string.format("not 2xx or 3xx: %d, socket errors: %d\n", summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
