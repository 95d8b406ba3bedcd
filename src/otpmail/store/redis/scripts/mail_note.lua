-- Carries out notes in their order: what nobody waits for.
-- KEYS: the settled mails without a request id, those with one; for each note the owner's set, the mail's record and
-- that of its request id (the mail's own again where it has none).
-- ARGV: for each note its kind, mail id, owner, octets, fingerprint, and by its kind three numbers, when the mail settled,
-- and further octets.

if redis.call('HGET', EPOCH, 'id') ~= epoch then
  return {'EPOCH'}
end

-- The first write removes, if nothing: with full memory none could follow otherwise.
redis.call('ZREM', OWNERS, '')

local kinds = {}

local function claim_of(record, request)
  if request == record then
    return {}
  end
  return redis.call('HMGET', request, 'state', 'mail', 'own', 'call')
end

-- A mail has settled: its set, its record, and its request id. Numbers: how long the record is kept, until when in
-- seconds the request id is (0: it is free), and for how many milliseconds. `more` is the content for a retry. `again`
-- writes the record in a server that was emptied.
local function settle(note, again)
  local mine = redis.call('ZREM', note.own, note.id) == 1
  local claim = claim_of(note.record, note.request)
  local claimed = claim[2] == note.id
  if not (mine or again or (claimed and claim[1] == 'running' and claim[3] == note.owner)) then
    return 0
  end
  redis.call('DEL', note.record)
  redis.call('HSET', note.record, 'settled', note.octets, 'time', note.time)
  if note.more ~= '' then
    redis.call('HSET', note.record, 'content', note.more)
  end
  redis.call('PEXPIRE', note.record, note.numbers[1])
  if note.request ~= note.record and (claimed or again) then
    local kept = tonumber(note.numbers[2]) > 0
    redis.call('HSET', note.request, 'state', kept and 'settled' or 'free', 'mail', note.id, 'print',
      note.fingerprint, 'own', note.owner, 'ends', note.numbers[2])
    redis.call('PEXPIRE', note.request, math.max(tonumber(note.numbers[1]), tonumber(note.numbers[3])))
  end
  local past = tonumber(note.numbers[2]) > 0 and KEYS[4] or KEYS[3]
  redis.call('ZADD', past, milliseconds() + note.numbers[1], note.id)
  return 1
end

function kinds.nothing()
  return 1
end

function kinds.settle(note)
  return settle(note, false)
end

function kinds.again(note)
  return settle(note, true)
end

-- Its progress, in which the end of earlier owners is counted.
function kinds.defer(note)
  if not redis.call('ZSCORE', note.own, note.id) then
    return 0
  end
  redis.call('HDEL', note.record, 'orphaned')
  redis.call('HSET', note.record, 'progress', note.octets)
  return 1
end

-- The owner could not cancel it.
function kinds.deny(note)
  if redis.call('ZSCORE', note.own, note.id) then
    redis.call('HSET', note.record, 'denied', note.numbers[1])
  end
  return 1
end

-- Its request id is free, since it was not accepted. A caller whose claim was not answered names itself.
function kinds.release(note)
  local claim = claim_of(note.record, note.request)
  local named = claim[2] == note.id or claim[4] == note.id
  if claim[1] == 'running' and named and claim[3] == note.owner then
    redis.call('DEL', note.request)
  end
  return 1
end

-- The answer to its acceptance was lost, and its caller was refused. Returns 2 where another call was answered that it
-- is accepted, which it is then.
function kinds.retract(note)
  if not redis.call('ZSCORE', note.own, note.id) then
    return 0
  end
  local claim = claim_of(note.record, note.request)
  if claim[2] == note.id and redis.call('HGET', note.request, 'joined') then
    return 2
  end
  redis.call('ZREM', note.own, note.id)
  redis.call('DEL', note.record)
  if claim[2] == note.id then
    redis.call('DEL', note.request)
  end
  return 1
end

-- It is missing in a server that was emptied or rolled back. Numbers: its score; 1 for a
-- mail, and 0 for a request id alone.
function kinds.rewrite(note)
  local has_content = tonumber(note.numbers[2]) == 1
  if has_content and not redis.call('ZSCORE', note.own, note.id) then
    redis.call('HSET', note.record, 'own', note.owner, 'entry', note.octets)
    redis.call('PERSIST', note.record)
    redis.call('ZADD', note.own, note.numbers[1], note.id)
  end
  if note.request ~= note.record then
    local claim = claim_of(note.record, note.request)
    if not claim[1] or claim[2] == note.id then
      redis.call('HSET', note.request, 'state', has_content and 'kept' or 'running', 'mail', note.id, 'print',
        note.fingerprint, 'own', note.owner)
    end
    redis.call('PERSIST', note.request)
  end
  return 1
end

local results = {'OK', 0}
for number = 0, (#KEYS - 4) / 3 - 1 do
  local own, record, request = unpack(KEYS, 5 + 3 * number, 7 + 3 * number)
  local kind, id, owner, octets, fingerprint, first, second, third, time, more =
    unpack(ARGV, 3 + 10 * number, 12 + 10 * number)
  results[#results + 1] = kinds[kind]({
    own = own,
    record = record,
    request = request,
    id = id,
    owner = owner,
    octets = octets,
    fingerprint = fingerprint,
    numbers = {first, second, third},
    time = time,
    more = more,
  })
end
if lease_of(me) > LEFT then
  results[2] = redis.call('HINCRBY', EPOCH, me, #results - 2)
end
return results
