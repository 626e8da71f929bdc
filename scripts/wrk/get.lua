-- GET /v1/assign with six attributes and a user of its own for every request.
--   wrk -t1 -c64 -d10s -s scripts/wrk/get.lua http://127.0.0.1:8080
local path = "/v1/assign?platform=android&app_version=42.24&country=RU&age=34&is_subscriber=true&subscriptions=kids,sport&user_id="
local user = 0

function init(args)
  math.randomseed(os.time())
  user = math.random(1000000000)
end

function request()
  user = user + 1
  return wrk.format("GET", path .. user)
end

function done(summary, latency)
  io.write(string.format("not 2xx or 3xx: %d, socket errors: %d\n", summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
