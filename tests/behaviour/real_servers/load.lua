-- What wrk sends: GETs that name one of many users in path and header. What it reports: one line of JSON.

local turn = 0

function request()
  turn = turn + 1
  local user = tostring(turn % 997)
  return wrk.format("GET", "/" .. user, { ["X-User"] = user })
end

function done(summary)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\n',
    summary.requests, errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
