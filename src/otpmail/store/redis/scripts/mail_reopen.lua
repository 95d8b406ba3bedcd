-- Opens a settled mail again, which this owner then has.
-- KEYS: own set, settled mails without a request id, those with one, the contents, the sum of their octets. Then the
-- mail's record and that of its request id (the mail's own again where it has none).
-- ARGV: the time in seconds, mail id, score, octets, fingerprint, head, when it settled.
-- Returns {'OK', changes counted, 'A' and the fingerprint, or 'N' where the mail is not as it settled then}.

local why = refusal()
if why then
  return {why}
end
local record, request, id = KEYS[8], KEYS[9], ARGV[4]
local kept = redis.call('HMGET', record, 'time', 'content')
local mail = request ~= record and redis.call('HGET', request, 'mail')
if kept[1] ~= ARGV[9] or not kept[2] or (mail and mail ~= id) then
  return {'OK', 0, 'N'}
end
-- The first write of all: with full memory it is refused, and with it the whole step.
local count = redis.call('HINCRBY', EPOCH, me, 1)
redis.call('ZREM', KEYS[4], id)
redis.call('ZREM', KEYS[5], id)
drop_content(KEYS[6], KEYS[7], record, id)
redis.call('DEL', record)
local print = ARGV[7]
if request ~= record then
  -- The fingerprint stays: that of a mail whose caller waited for the relay stands here alone.
  print = redis.call('HGET', request, 'print') or print
end
keep_as(KEYS[3], record, request, {id = id, score = ARGV[5], octets = ARGV[6], fingerprint = print, head = ARGV[8]})
return {'OK', count, 'A' .. print}
