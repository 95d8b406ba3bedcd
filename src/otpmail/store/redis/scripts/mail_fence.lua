-- Takes the lease of an owner for good, if it has ended, and names the first mails that it owned.
-- KEYS: the other's set, the other's cancels.
-- ARGV: the other's name; how many mails to name.
-- Returns {'OK', 0, the ids of the mails...}. The 0 says that none of this owner's changes counts.

local why = refusal()
if why then
  return {why}
end
local own, cancels, other = KEYS[3], KEYS[4], ARGV[3]
local ends = lease_of(other)
if ends < 0 or ends > milliseconds() then
  return {'OK', 0}
end
redis.call('HDEL', EPOCH, other)
redis.call('DEL', cancels)
local mails = redis.call('ZRANGE', own, 0, ARGV[4] - 1)
if #mails == 0 then
  redis.call('ZREM', OWNERS, other)
elseif ends > RELEASED then
  redis.call('ZADD', OWNERS, FENCED, other)
end
return {'OK', 0, unpack(mails)}
