-- A set, a deletion, or either once more. ARGV:
--   ttl      in ms; a deletion's is at least what was left of the status
--   after    store only if the key's version is this; empty: always
--   memory   the greatest time of the store that the node knows of
--   version  the version that it had before; empty: it gets the next one
--   number   of this set or deletion; what is carried out twice, because its answer was lost, is done once
--   final    0 or 1; and value: both absent for a deletion
-- Gives {now, 'stored', version, ttl, lease's name, its end, ...}, {now, 'conflict', version} or {now, 'full'}.
local ttl, memory, again, number = tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local final, value = ARGV[6], ARGV[7]
local known = call('HMGET', key, 'v', 'x', 'o', 'p', 'n')
local stored, expires = tonumber(known[1]) or 0, tonumber(known[2]) or 0

if number ~= '' and known[5] == number then
  return add_leases({now, 'stored', stored, expires - now})
end

local version
if again then
  -- Also where what is newer has expired: what is older must not come back.
  if stored >= again then
    return {now, 'conflict', stored}
  end
  version = again
else
  local live = expires > now and stored or 0
  if ARGV[2] ~= '' and tonumber(ARGV[2]) ~= live then
    return {now, 'conflict', live}
  end
  local floor = 0
  if (tonumber(known[4]) or 0) > now then
    floor = tonumber(known[3]) or 0
  end
  version = math.max(live + 1, floor + 1, now, memory)
  if version > 9007199254740991 then
    return {now, 'full'}
  end
  if not value then
    ttl = math.max(ttl, expires - now)
  end
end

local ends = now + ttl
local answer = add_leases({now, 'stored', version, ttl})
-- The hash outlives what it replaces, and what is put again as expired: else something older could be put again.
local last = math.max(ends, expires, tonumber(known[4]) or 0, again and now + 60000 or 0)
for i = 6, #answer, 2 do
  last = math.max(last, answer[i])
end
if value then
  call('HSET', key, 'v', digits(version), 'x', digits(ends), 'n', number, 'f', final, 'd', value)
else
  call('HSET', key, 'v', digits(version), 'x', digits(ends), 'n', number)
  call('HDEL', key, 'd', 'f')
end
call('PEXPIREAT', key, digits(last))
return answer
