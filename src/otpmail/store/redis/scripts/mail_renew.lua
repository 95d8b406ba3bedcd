-- Renews the lease of this owner, or gives it one, and says what it has to do.
-- KEYS: own set, own cancels.
-- ARGV: the lease in milliseconds; '1' to take a lease, else the present one is renewed.
-- Returns {'OK', the epoch's id, the count of its changes, how many mails it owns, milliseconds until the next lease of
-- another ends (-1 for none), the mails to cancel, the owners whose leases have ended}.

local own, cancels = KEYS[3], KEYS[4]
local known = redis.call('HGET', EPOCH, 'id')
-- The first write removes something: with full memory no lease could be renewed otherwise.
local cancelled = redis.call('SMEMBERS', cancels)
redis.call('DEL', cancels)
if ARGV[4] == '1' then
  if not known then
    known = epoch
    redis.call('HSET', EPOCH, 'id', known)
  end
elseif known ~= epoch then
  return {'EPOCH'}
elseif lease_of(me) <= RELEASED then
  return {'LOST'}
end
local now = milliseconds()
redis.call('ZADD', OWNERS, now + ARGV[3], me)
local next_end = -1
for _, owner in ipairs(redis.call('ZRANGEBYSCORE', OWNERS, '(' .. now, '+inf', 'LIMIT', 0, 2)) do
  if owner ~= me and next_end < 0 then
    next_end = lease_of(owner) - now
  end
end
local count = redis.call('HINCRBY', EPOCH, me, 1)
local ended = redis.call('ZRANGEBYSCORE', OWNERS, '-inf', now, 'LIMIT', 0, 100)
return {'OK', known, count, redis.call('ZCARD', own), next_end, cancelled, ended}
