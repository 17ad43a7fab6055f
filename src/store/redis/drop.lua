-- A lease that nobody holds any more goes, unless it was renewed meanwhile. ARGV: its name, its end as it was seen;
-- empty where its own node says so.
if ARGV[2] == '' or tonumber(call('HGET', key, ARGV[1])) == tonumber(ARGV[2]) then
  call('HDEL', key, ARGV[1])
end
return {now}
