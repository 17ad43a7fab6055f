-- Keeps a node on the list of nodes or takes it off, and reads the other nodes. The hash has a
-- field for each node: its name, with the end of its stay. ARGV: the node's name; its stay in ms;
-- the most other nodes to return, 0 if the node leaves.
-- Returns {now, name, its end, ...}.

local own, stay, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local found = {now}
for _, name in ipairs(call('HKEYS', key)) do
  local ends = tonumber(call('HGET', key, name)) or 0
  -- An end that is far away was written before the clock was set back.
  if ends <= now or ends > now + 2 * stay then
    call('HDEL', key, name)
  elseif name ~= own and #found < 2 * most then
    found[#found + 1] = name
    found[#found + 1] = ends
  end
end
if most > 0 then
  call('HSET', key, own, digits(now + stay))
  call('PEXPIREAT', key, digits(now + stay))
else
  call('HDEL', key, own)
end
return found
