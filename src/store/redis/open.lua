-- Opens a key for gets. ARGV: the least and the greatest version that the waiting gets know, the
-- lease in ms or 0, the lease's name, the greatest time of the store that the node knows of.
-- Returns {now, the lease's end or 0}
-- or {now, the lease's end or 0, version, left, value or nil, final}.
local least, most, lease, memory = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[5])
local known = call('HMGET', key, 'v', 'x', 'o', 'p', ARGV[4])
local version, expires = tonumber(known[1]) or 0, tonumber(known[2]) or 0
local has_ended = version > 0 and expires <= now
if has_ended then
  version = 0
end

-- A Redis that is full or has too few replicas refuses to write. The status is returned even then.
local ends, refusal = 0, nil
if lease > 0 and version <= most then
  -- Each open moves the end, because a node names the lease that it gives back by its end. No lease
  -- is longer than a day.
  local before = tonumber(known[5]) or 0
  if before > now + 86400000 then
    before = 0
  end
  ends = math.max(now + lease, before + 1)
  local lease_ends = digits(ends)
  local fields = {ARGV[4], lease_ends}
  -- A floor that is too far ahead would be ignored, and take the place of one that counts.
  if most > 0 and most <= math.max(now, memory) + MAX_AHEAD then
    local floor, floor_ends = tonumber(known[3]) or 0, tonumber(known[4]) or 0
    if floor_ends <= now or floor > math.max(now, memory) + MAX_AHEAD then
      floor = 0
    end
    fields[3], fields[4] = 'o', floor > most and digits(floor) or ARGV[2]
    fields[5], fields[6] = 'p', floor_ends > ends and digits(floor_ends) or lease_ends
  end
  local written = redis.pcall('HSET', key, unpack(fields))
  if type(written) == 'table' and written.err then
    ends, refusal = 0, written
  else
    if has_ended then
      -- The lease keeps the hash alive: a value that has ended must not stay for as long as pages
      -- ask.
      call('HDEL', key, 'd', 'f')
    end
    local ttl = call('PTTL', key)
    if ttl < 0 or now + ttl < ends then
      call('PEXPIREAT', key, lease_ends)
    end
  end
end

if version > least then
  local status = call('HMGET', key, 'd', 'f')
  return {now, ends, version, expires - now, status[1], status[2]}
end
return refusal or {now, ends}
