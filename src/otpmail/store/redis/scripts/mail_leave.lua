-- Gives up the lease of this owner at a stop: the others take its mails over at once.
-- KEYS: own set, own cancels.
-- Returns how many mails this owner leaves; 0 where the server's data is another than it knows.

if redis.call('HGET', EPOCH, 'id') ~= epoch then
  return 0
end
local ends = lease_of(me)
redis.call('HDEL', EPOCH, me)
redis.call('DEL', KEYS[4])
local mails = redis.call('ZCARD', KEYS[3])
if mails == 0 then
  redis.call('ZREM', OWNERS, me)
elseif ends > RELEASED then
  redis.call('ZADD', OWNERS, RELEASED, me)
end
return mails
