-- POST /v1/assign with the bodies of a file, one a line, in turn; DEPTH of them in
-- one write, 1 unless given.
--   wrk -t1 -c64 -d10s -s scripts/wrk/post.lua http://127.0.0.1:8080 -- [DEPTH [FILE]]
-- FILE is tests/golden/typical.requests.ndjson unless given; start splitd with
-- the experiments beside it to repeat the figures of the README.
local batches = {}
local index = 0

function init(args)
  local depth = tonumber(args[1] or "1")
  local name = args[2] or "tests/golden/typical.requests.ndjson"
  local file = assert(io.open(name), "cannot open " .. name)
  local batch = {}
  for body in file:lines() do
    batch[#batch + 1] = wrk.format("POST", "/v1/assign", { ["Content-Type"] = "application/json" }, body)
    if #batch == depth then
      batches[#batches + 1] = table.concat(batch)
      batch = {}
    end
  end
  file:close()
  assert(#batches > 0, name .. " holds fewer than " .. depth .. " requests")
end

function request()
  index = index % #batches + 1
  return batches[index]
end

function done(summary, latency)
  io.write(string.format("not 2xx or 3xx: %d, socket errors: %d\n", summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
