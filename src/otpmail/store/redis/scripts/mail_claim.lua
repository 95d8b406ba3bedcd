-- Keeps a request id for a mail that is about to be accepted.
-- KEYS: the record of the request id, that of the mail.
-- ARGV: the time in seconds, mail id, fingerprints, for how many milliseconds the claim is kept, a digest of whose it
-- is.
-- Returns {'OK', changes counted, the answer}.

local why = refusal()
if why then
  return {why}
end
local request, record, now, id, fingerprints = KEYS[3], KEYS[4], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local answer = earlier(request, fingerprints, id, now) or 'A'
local kind = string.sub(answer, 1, 1)
local count = 0
if kind == 'A' or kind == 'T' then
  count = redis.call('HINCRBY', EPOCH, me, 1)
  -- `call` is the id that the caller knows while it has no answer: it is another than `mail` after a take-over.
  redis.call('HSET', request, 'state', 'running', 'print', first_of(fingerprints), 'own', me, 'call', id)
  if kind == 'A' then
    redis.call('HDEL', request, 'gone')
    redis.call('HSET', request, 'mail', id)
    -- So that other replicas can say where the mail is, which has no content on the server.
    redis.call('HSET', record, 'claim', ARGV[7] .. request)
    redis.call('PEXPIRE', record, ARGV[6])
  else
    redis.call('HSET', request, 'gone', 1)
  end
  redis.call('PEXPIRE', request, ARGV[6])
end
return {'OK', count, answer}
