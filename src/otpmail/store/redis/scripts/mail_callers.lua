-- Tells whose settled mails are, by a digest of the caller's name; it is empty where an earlier version has written one.
-- KEYS: the record of each mail.

local callers = {}
for number = 1, #KEYS do
  callers[number] = redis.call('HGET', KEYS[number], 'caller') or ''
end
return callers
