-- Keeps one mail, for the scripts that accept mails.

-- The mail whose id, score, octets and fingerprint are in ARGV from `first`; its request id is to be free, or its own.
local function keep(own, record, request, first)
  local id, score, octets, fingerprint = unpack(ARGV, first, first + 3)
  redis.call('HSET', record, 'own', me, 'entry', octets)
  redis.call('ZADD', own, score, id)
  if request ~= record then
    redis.call('HDEL', request, 'joined')
    redis.call('HSET', request, 'state', 'kept', 'mail', id, 'print', fingerprint, 'own', me)
    redis.call('PERSIST', request)
  end
end

-- What came before under a mail's request id (see `earlier`); false where the mail is to be kept.
local function came_before(record, request, fingerprint, id, now)
  local answer = request ~= record and earlier(request, fingerprint, id, now)
  return answer and string.sub(answer, 1, 1) ~= 'T' and answer
end

-- The caller of a repeated request may be told that the first mail is accepted.
local function join(request, answer)
  if string.sub(answer, 1, 1) == 'R' then
    redis.call('HSET', request, 'joined', 1)
  end
end
