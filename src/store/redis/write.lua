-- Stores a status or a deletion, or puts either again. ARGV:
--   ttl      in ms; a deletion's is at least what was left of the status
--   after    the version that the key must have for this to be stored; empty: any
--   memory   the greatest time of the store that the node knows of
--   version  the version of an update that is put again; empty: it gets the next one
--   number   8 bytes; a write whose number is among the key's last eight is not carried out again;
--            empty: none
--   until    the latest time at which it may be carried out, by this server's clock; empty: always
--   final    1 if the status is final, else 0; absent for a deletion
--   value    the value's JSON text; absent for a deletion
-- Returns one of
--   {now, 'stored', version, ttl, lease's name, its end, ...}
--   {now, 'earlier', its version, present version or 0, left, value or nil, final or nil, lease's
--     name, its end, ...}
--   {now, 'late', the number of remembered writes, the version of the oldest of them or 0}
--   {now, 'conflict', version}
--   {now, 'full'}
local ttl, memory, again, number = tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local until_time, final, value = tonumber(ARGV[6]), ARGV[7], ARGV[8]
local known = call('HMGET', key, 'v', 'x', 'o', 'p', 'w')
local stored, expires, writes = tonumber(known[1]) or 0, tonumber(known[2]) or 0, known[5] or ''

if number ~= '' then
  for at = 1, #writes - 15, 16 do
    if string.sub(writes, at, at + 7) == number then
      local answer = {now, 'earlier', (struct.unpack('>d', writes, at + 8)), 0, 0, false, false}
      if expires > now then
        local status = call('HMGET', key, 'd', 'f')
        answer[4], answer[5], answer[6], answer[7] = stored, expires - now, status[1], status[2]
      end
      add_leases(answer)
      return answer
    end
  end
end
if until_time and now > until_time then
  return {now, 'late', math.floor(#writes / 16), #writes >= 16 and (struct.unpack('>d', writes, 9)) or 0}
end

local version
if again then
  -- A newer update counts even if it has expired, because an older one must not come back.
  if stored >= again then
    return {now, 'conflict', stored}
  end
  version = again
else
  local live = expires > now and stored or 0
  if ARGV[2] ~= '' and tonumber(ARGV[2]) ~= live then
    return {now, 'conflict', live}
  end
  local floor = tonumber(known[3]) or 0
  if (tonumber(known[4]) or 0) <= now or floor > math.max(now, memory) + MAX_AHEAD then
    floor = 0
  end
  -- A status that has ended counts too, because a page may have been given its version.
  version = math.max(stored + 1, floor + 1, now, memory)
  if version > 9007199254740991 then
    return {now, 'full'}
  end
  if not value then
    ttl = math.max(ttl, expires - now)
  end
end

local ends = now + ttl
local answer = {now, 'stored', version, ttl}
local ended = add_leases(answer)
-- The hash outlives the update that this one replaces, and also an update that has expired when it
-- is put again: otherwise an older one could be put again later. It also remembers a version ahead
-- of the clock until the clock has passed it, an hour at most.
local last = math.max(ends, expires, tonumber(known[4]) or 0, again and now + 60000 or 0,
  math.min(version, now + MAX_AHEAD))
for i = 6, #answer, 2 do
  last = math.max(last, answer[i])
end
if number ~= '' then
  writes = string.sub(writes, #writes >= 128 and 17 or 1) .. number .. struct.pack('>d', version)
end
if value then
  call('HSET', key, 'v', digits(version), 'x', digits(ends), 'n', number, 'w', writes, 'f', final, 'd', value)
else
  call('HSET', key, 'v', digits(version), 'x', digits(ends), 'n', number, 'w', writes)
  call('HDEL', key, 'd', 'f')
end
if #ended > 0 then
  call('HDEL', key, unpack(ended))
end
call('PEXPIREAT', key, digits(last))
return answer
