-- The beginning of every script. docs/cluster.md describes the hash; `script.rs` names the purpose of
-- each script.
--
-- v  the version of the status, or of the deletion
-- x  when the status or the deletion ends, in ms since 1970
-- d  the value's JSON text; absent if the key was deleted
-- f  1 if the status is final, else 0
-- w  the key's last eight writes, the oldest first; each has 8 bytes of number, and the version as
--    a big-endian double
-- n  the number of the last write, for nodes of earlier versions, which do not know `w`
-- o  the floor: the greatest `last` of a get
-- p  when the floor ends
-- <node id>@<address>  a lease: when it ends
--
-- Redis runs a command in one microsecond, and Lua adds one or two around each. So the scripts run
-- few commands, and the parts that only some scripts need are in files of their own.
local call, key = redis.call, KEYS[1]
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- A floor that is further ahead than this, in ms, is ignored. Nodes of earlier versions store one
-- if a page sends such a `last`.
local MAX_AHEAD = 3600000

-- Returns a number as the text of an argument. Some versions of Redis would write 1.7e+12.
local function digits(number)
  return string.format('%.0f', number)
end
