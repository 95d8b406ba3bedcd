-- Returns what is kept of mails: of the first ones up to MOST octets, and of one at the least.
-- KEYS: the record of each mail.

local MOST = 1048576
local found, octets = {}, 0
for number = 1, #KEYS do
  octets = octets + redis.call('HSTRLEN', KEYS[number], 'entry') + redis.call('HSTRLEN', KEYS[number], 'settled')
  if octets > MOST and number > 1 then
    break
  end
  found[#found + 1] = redis.call('HMGET', KEYS[number], 'own', 'entry', 'progress', 'settled', 'denied')
end
return found
