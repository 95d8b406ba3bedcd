-- Keeps one mail, for the scripts that open mails.

-- `mail` has an id, a score, octets, a fingerprint, and a head if it is large. Its request id must be free, or its own.
local function keep_as(own, record, request, mail)
  if request ~= record then
    redis.call('DEL', record) -- that of a claim, which ends by itself
  end
  redis.call('HSET', record, 'own', me, 'entry', mail.octets)
  if mail.head ~= '' then
    redis.call('HSET', record, 'head', mail.head)
  end
  redis.call('ZADD', own, mail.score, mail.id)
  if request ~= record then
    redis.call('HDEL', request, 'joined', 'gone')
    redis.call('HSET', request, 'state', 'kept', 'mail', mail.id, 'print', mail.fingerprint, 'own', me)
    redis.call('PERSIST', request)
  end
end

-- Keeps the mail whose id, score, octets, fingerprints and head are in ARGV from `first`.
local function keep(own, record, request, first)
  local id, score, octets, fingerprints, head = unpack(ARGV, first, first + 4)
  local fingerprint = first_of(fingerprints)
  keep_as(own, record, request, {id = id, score = score, octets = octets, fingerprint = fingerprint, head = head})
end

-- The earlier mail of a mail's request id (see `earlier`); false where the mail is to be kept.
local function came_before(record, request, fingerprints, id, now)
  local answer = request ~= record and earlier(request, fingerprints, id, now)
  return answer and string.sub(answer, 1, 1) ~= 'T' and answer
end

-- Notes that the caller of a repeated request may have the answer that the first mail is accepted.
local function join(request, answer)
  if string.sub(answer, 1, 1) == 'R' then
    redis.call('HSET', request, 'joined', 1)
  end
end
