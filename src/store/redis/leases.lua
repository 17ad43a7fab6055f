-- What scripts begin with that tell who holds leases.

-- No lease is longer than a day: what others wrote here must not stop us.
local MAX_LEASE = 86400000

-- The leases that have not ended, as name, end, name, end behind what `found` holds. The others go.
local function add_leases(found)
  for _, name in ipairs(call('HKEYS', key)) do
    -- Our own fields have one letter.
    if #name > 1 and string.find(name, '@', 1, true) then
      local ends = tonumber(call('HGET', key, name)) or 0
      if ends > now and ends <= now + MAX_LEASE then
        found[#found + 1] = name
        found[#found + 1] = ends
      else
        call('HDEL', key, name)
      end
    end
  end
  return found
end
