-- What all scripts begin with. README.md describes the hash; `redis.rs` says what each script is for.
--
-- v  version of the status, or of the deletion       x  when that ends, in ms since 1970
-- d  the value's JSON text; absent: deleted          f  1 where it is final, else 0
-- o  floor: the greatest `last` of a get              p  when that ends
-- n  the number of the set or deletion
-- <node id>@<address>  a lease: when it ends
local key = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- A number as an argument: some versions of Redis would write 1.7e+12 themselves.
local function digits(number)
  return string.format('%.0f', number)
end

-- No lease is longer than a day: what others wrote here must not stop us.
local MAX_LEASE = 86400000

-- The leases that have not ended, as name, end, name, end behind what `found` holds. The others go.
local function add_leases(found)
  for _, name in ipairs(redis.call('HKEYS', key)) do
    if string.find(name, '@', 1, true) then
      local ends = tonumber(redis.call('HGET', key, name)) or 0
      if ends > now and ends <= now + MAX_LEASE then
        found[#found + 1] = name
        found[#found + 1] = ends
      else
        redis.call('HDEL', key, name)
      end
    end
  end
  return found
end
