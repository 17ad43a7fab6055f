-- Gives back a lease of a node after the waiters have left. ARGV: the lease's name, its end as the
-- node knows it, and the latest time at which this may be carried out. Does nothing after that
-- time. Does nothing either if the end is another one by now, because a get has opened the key
-- since.
-- Returns {now, the end of the lease that is still there or 0}.
local ends = tonumber(call('HGET', key, ARGV[1])) or 0
if now > tonumber(ARGV[3]) or ends ~= tonumber(ARGV[2]) then
  return {now, ends}
end
call('HDEL', key, ARGV[1])
local others = {}
add_leases(others)
if #others == 0 then
  -- Nobody waits, so there is no version known to a waiter that the next one has to exceed.
  call('HDEL', key, 'o', 'p')
end
return {now, 0}
