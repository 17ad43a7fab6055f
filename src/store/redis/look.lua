-- What is under a key. Gives {now, version or 0, left, value or nil, final or nil, lease's name, its end, ...}.
local known = call('HMGET', key, 'v', 'x', 'd', 'f')
local version, left = tonumber(known[1]) or 0, (tonumber(known[2]) or 0) - now
if left <= 0 then
  version, left, known[3], known[4] = 0, 0, false, false
end
return add_leases({now, version, left, known[3], known[4]})
