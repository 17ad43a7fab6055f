-- A get begins. ARGV: least, most (what the gets that wait know), lease in ms or 0, the lease's name.
-- Gives {now} or {now, version, left, value or nil, final}.
local least, most, lease = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local known = call('HMGET', key, 'v', 'x', 'o', 'p', ARGV[4])
local version, expires = tonumber(known[1]) or 0, tonumber(known[2]) or 0
if expires <= now then
  if version > 0 and lease > 0 then
    -- Its value is not kept for as long as pages ask.
    call('HDEL', key, 'd', 'f')
  end
  version = 0
end

if lease > 0 and version <= most then
  local ends = math.max(now + lease, tonumber(known[5]) or 0)
  local lease_ends = digits(ends)
  if most > 0 then
    local floor, floor_ends = tonumber(known[3]) or 0, tonumber(known[4]) or 0
    if floor_ends <= now then
      floor = 0
    end
    local o = floor > most and digits(floor) or ARGV[2]
    local p = floor_ends > ends and digits(floor_ends) or lease_ends
    call('HSET', key, ARGV[4], lease_ends, 'o', o, 'p', p)
  else
    call('HSET', key, ARGV[4], lease_ends)
  end
  local ttl = call('PTTL', key)
  if ttl < 0 or now + ttl < ends then
    call('PEXPIREAT', key, lease_ends)
  end
end

if version > least then
  local status = call('HMGET', key, 'd', 'f')
  return {now, version, expires - now, status[1], status[2]}
end
return {now}
