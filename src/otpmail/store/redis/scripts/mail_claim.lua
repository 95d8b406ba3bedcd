-- Keeps a request id for a mail that is about to be accepted.
-- KEYS: the record of the request id.
-- ARGV: the time in seconds; mail id, fingerprint; for how many milliseconds the claim is kept.
-- Returns {'OK', changes counted, the answer}.

local why = refusal()
if why then
  return {why}
end
local request, now, id, fingerprint = KEYS[3], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local answer = earlier(request, fingerprint, id, now) or 'A'
local kind = string.sub(answer, 1, 1)
if kind == 'T' then
  id = string.sub(answer, 2)
end
local count = 0
if kind == 'A' or kind == 'T' then
  count = redis.call('HINCRBY', EPOCH, me, 1)
  -- `call` is the id that the caller knows while it has no answer: it is another than `mail` after a take-over.
  redis.call('HSET', request, 'state', 'running', 'mail', id, 'print', fingerprint, 'own', me, 'call', ARGV[4])
  redis.call('PEXPIRE', request, ARGV[6])
end
return {'OK', count, answer}
