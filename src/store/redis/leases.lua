-- A part of the scripts that list the leases of a key.

-- The longest life of a lease, a day, in ms. Anything else that others wrote here is ignored.
local MAX_LEASE = 86400000

-- Adds the leases that have not ended to `found`, as name, end, name, end. Returns the names of
-- those that have ended.
local function add_leases(found)
  local ended = {}
  for _, name in ipairs(call('HKEYS', key)) do
    -- The fields of the status have one letter each.
    if #name > 1 and string.find(name, '@', 1, true) then
      local ends = tonumber(call('HGET', key, name)) or 0
      if ends > now and ends <= now + MAX_LEASE then
        found[#found + 1] = name
        found[#found + 1] = ends
      else
        ended[#ended + 1] = name
      end
    end
  end
  return ended
end
