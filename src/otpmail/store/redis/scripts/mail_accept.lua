-- Keeps mails with their request ids, in one step.
-- KEYS: own set; for each mail its record and that of its request id (the mail's own again where it has none).
-- ARGV: the time in seconds; for each mail its id, score, octets and fingerprint.

local why = refusal()
if why then
  return {why}
end
local own, now = KEYS[3], tonumber(ARGV[3])
local mails = (#KEYS - 3) / 2
-- The first write of all: with full memory it is refused, and with it the whole step.
local answers = {'OK', redis.call('HINCRBY', EPOCH, me, mails)}
for number = 0, mails - 1 do
  local record, request = KEYS[4 + 2 * number], KEYS[5 + 2 * number]
  local id, score, octets, fingerprint = unpack(ARGV, 4 + 4 * number, 7 + 4 * number)
  local answer = request ~= record and earlier(request, fingerprint, id, now)
  if not answer or string.sub(answer, 1, 1) == 'T' then
    redis.call('HSET', record, 'own', me, 'entry', octets)
    redis.call('ZADD', own, score, id)
    if request ~= record then
      redis.call('HDEL', request, 'joined')
      redis.call('HSET', request, 'state', 'kept', 'mail', id, 'print', fingerprint, 'own', me)
      redis.call('PERSIST', request)
    end
    answer = 'A'
  elseif string.sub(answer, 1, 1) == 'R' then
    redis.call('HSET', request, 'joined', 1) -- its caller may be told that the first mail is accepted
  end
  answers[#answers + 1] = answer
end
return answers
