-- Reads some mails: the first ones up to MOST octets, and one at the least.
-- KEYS: the record of each mail.
-- Returns for each {owner, head, progress, settled, denied, claim, entry}. An open mail comes as its head, where it has
-- one. Another that is larger than MOST comes as its size.

local MOST = 262144
local found, octets = {}, 0
for number = 1, #KEYS do
  local fields = redis.call('HMGET', KEYS[number], 'own', 'head', 'progress', 'settled', 'denied', 'claim')
  local size = redis.call('HSTRLEN', KEYS[number], 'entry')
  local entry = false
  if fields[4] or fields[2] then
    octets = octets + string.len(fields[4] or fields[2])
  elseif size > MOST then
    entry = size
  elseif size > 0 then
    octets = octets + size
  end
  if octets > MOST and number > 1 then
    break
  end
  if not entry and not fields[4] and not fields[2] then
    entry = redis.call('HGET', KEYS[number], 'entry')
  end
  fields[7] = entry
  found[#found + 1] = fields
end
return found
