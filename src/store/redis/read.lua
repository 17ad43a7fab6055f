-- Reads what is under a key. Writes nothing, so that a Redis that refuses writes answers too.
-- Returns {now, version or 0, left, value or nil, final or nil, lease's name, its end, ...}.
local known = call('HMGET', key, 'v', 'x', 'd', 'f')
local version, left = tonumber(known[1]) or 0, (tonumber(known[2]) or 0) - now
if left <= 0 then
  version, left, known[3], known[4] = 0, 0, false, false
end
local answer = {now, version, left, known[3], known[4]}
add_leases(answer)
return answer
