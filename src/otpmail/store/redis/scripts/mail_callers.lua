-- Reads whose some settled mails are.
-- KEYS: the record of each mail.
-- Returns a digest of each caller's name, '' where an earlier version has written the record.

local callers = {}
for number = 1, #KEYS do
  callers[number] = redis.call('HGET', KEYS[number], 'caller') or ''
end
return callers
