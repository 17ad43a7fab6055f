-- Deletes the value of a status that has ended, while the key remembers its version. ARGV: none.
-- Returns {now}.
if (tonumber(call('HGET', key, 'x')) or 0) <= now then
  call('HDEL', key, 'd', 'f')
end
return {now}
