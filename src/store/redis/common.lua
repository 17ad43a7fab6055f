-- What all scripts begin with. README.md describes the hash; `redis.rs` says what each script is for.
--
-- v  version of the status, or of the deletion       x  when that ends, in ms since 1970
-- d  the value's JSON text; absent: deleted          f  1 where it is final, else 0
-- o  floor: the greatest `last` of a get              p  when that ends
-- n  the number of the set or deletion
-- <node id>@<address>  a lease: when it ends
--
-- Redis runs a command in one microsecond, and what Lua does around each in one or two: so the commands are few, and what
-- only some scripts need stands in `leases.lua`.
local call, key = redis.call, KEYS[1]
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- A number as an argument: some versions of Redis would write 1.7e+12 themselves.
local function digits(number)
  return string.format('%.0f', number)
end
