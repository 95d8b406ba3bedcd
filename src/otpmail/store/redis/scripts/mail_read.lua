-- Returns what is kept of mails. KEYS: the record of each mail.

local found = {}
for number = 1, #KEYS do
  found[#found + 1] = redis.call('HMGET', KEYS[number], 'own', 'entry', 'progress', 'settled', 'denied')
end
return found
