-- Opens a settled mail again, which this owner then has.
-- KEYS: own set, settled mails without a request id, those with one; the mail's record and that of its request id (the
-- mail's own again where it has none).
-- ARGV: the time in seconds; mail id, score, octets, fingerprint; when it settled.
-- Returns why not, or 'A' and the fingerprint.

local why = refusal()
if why then
  return why
end
local record, request, id = KEYS[6], KEYS[7], ARGV[4]
local kept = redis.call('HMGET', record, 'time', 'content')
if kept[1] ~= ARGV[8] or not kept[2] then
  return 'NO'
end
if request ~= record then
  local mail = redis.call('HGET', request, 'mail')
  if mail and mail ~= id then
    return 'NO'
  end
end
redis.call('HSET', EPOCH, 'id', epoch) -- with full memory the step ends here, before it has changed anything
redis.call('ZREM', KEYS[4], id)
redis.call('ZREM', KEYS[5], id)
redis.call('DEL', record)
redis.call('HSET', record, 'own', me, 'entry', ARGV[6])
redis.call('ZADD', KEYS[3], ARGV[5], id)
local print = ARGV[7]
if request ~= record then
  -- The fingerprint stays: that of a mail whose caller waited for the relay stands here alone.
  print = redis.call('HGET', request, 'print') or print
  redis.call('HSET', request, 'state', 'kept', 'mail', id, 'print', print, 'own', me)
  redis.call('PERSIST', request)
end
return 'A' .. print
