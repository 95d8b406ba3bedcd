-- Carries out notes in their order: changes that nobody waits for.
-- KEYS: the settled mails without a request id, those with one, the contents, the sum of their octets; for how long
-- mails without a request id are remembered, and those with one. Then for each note the owner's set, the mail's record
-- and that of its request id (the mail's own again where it has none).
-- ARGV:
--   3  how many octets all contents may have
--   4  for how many milliseconds this replica has mails remembered, and those with a request id
--   6  for each note twelve values:
--  +0  kind, mail id, owner, octets, fingerprint
--  +5  four numbers, by its kind
--  +9  when the mail settled, further octets, and a digest of its caller
-- Returns {'OK', changes counted}, and for each note with the result 2 or 3, as below, its place and that result.

if redis.call('HGET', EPOCH, 'id') ~= epoch then
  return {'EPOCH'}
end
local SETTLED, ANSWERED, CONTENTS, SUM, REMEMBERING, ANSWERING = unpack(KEYS, 3, 8)
local A_DAY = 86400000
local NOW = milliseconds()

-- The first write removes, if nothing: with full memory none could follow otherwise.
redis.call('ZREM', OWNERS, '')

local kinds = {}

local function claim_of(record, request)
  if request == record then
    return {}
  end
  local kept = redis.call('HMGET', request, 'state', 'mail', 'own', 'call')
  return {state = kept[1], mail = kept[2], owner = kept[3], call = kept[4]}
end

-- Whether the server knows more of a mail by now than a settlement that is written again. Another owner may have opened
-- it, or it may have settled once more.
local function is_outdated(note)
  local kept = redis.call('HMGET', note.record, 'own', 'time')
  return (kept[1] and kept[1] ~= note.owner) or (kept[2] and tonumber(kept[2]) > tonumber(note.time))
end

-- Notes for how long mails that end then are remembered: replicas may differ in that, and each may change it. An
-- earlier version may have remembered mails for any time, and those with a request id for a day.
local function note_time(times, mails, time, earlier, ends)
  if redis.call('EXISTS', times) == 0 then
    local last = redis.call('ZREVRANGE', mails, 0, 0, 'WITHSCORES')
    if last[2] then
      redis.call('ZADD', times, last[2], earlier)
    end
  end
  redis.call('ZADD', times, 'GT', ends, time)
end

-- Numbers: for how many milliseconds the record is kept; until when, in seconds, the request id is kept (0: it is
-- free), and for how many milliseconds; for how many the mail is remembered. `more` is the content for a retry.
-- Returns 3 where there was no room for the content, else 1.
local function write_settled(note)
  local result = 1
  redis.call('DEL', note.record)
  redis.call('HSET', note.record, 'settled', note.octets, 'time', note.time, 'caller', note.caller)
  if note.more ~= '' then
    local ends = NOW + note.numbers[4]
    if not keep_content(CONTENTS, SUM, note.record, note.id, note.more, ends, tonumber(ARGV[3])) then
      result = 3
    end
  end
  redis.call('PEXPIRE', note.record, note.numbers[1])
  local ends, has_answer = NOW + note.numbers[1], tonumber(note.numbers[2]) > 0
  if has_answer then
    note_time(ANSWERING, ANSWERED, ARGV[5], A_DAY, ends)
  else
    note_time(REMEMBERING, SETTLED, ARGV[4], 0, ends)
  end
  redis.call('ZADD', has_answer and ANSWERED or SETTLED, ends, note.id)
  return result
end

local function write_answer(note)
  redis.call('HDEL', note.request, 'gone')
  redis.call('HSET', note.request, 'state', tonumber(note.numbers[2]) > 0 and 'settled' or 'free', 'mail', note.id,
    'print', note.fingerprint, 'own', note.owner, 'ends', note.numbers[2])
  redis.call('PEXPIRE', note.request, math.max(tonumber(note.numbers[1]), tonumber(note.numbers[3])))
end

function kinds.nothing()
  return 1
end

-- A mail has settled: its set, its record, and its request id.
function kinds.settle(note)
  local mine = redis.call('ZREM', note.own, note.id) == 1
  local claim = claim_of(note.record, note.request)
  local claimed = claim.mail == note.id
  if not (mine or (claimed and claim.state == 'running' and claim.owner == note.owner)) then
    return 0
  end
  local result = write_settled(note)
  if claimed then
    write_answer(note)
  end
  return result
end

-- The same in a server that was emptied or set back, and may know nothing of it, or may have it already.
function kinds.again(note)
  if is_outdated(note) then
    return 0
  end
  redis.call('ZREM', note.own, note.id)
  local result = 1
  if redis.call('HGET', note.record, 'time') ~= note.time then
    drop_content(CONTENTS, SUM, note.record, note.id)
    redis.call('ZREM', SETTLED, note.id)
    redis.call('ZREM', ANSWERED, note.id)
    result = write_settled(note)
  end
  local claim = claim_of(note.record, note.request)
  local is_open = claim.state == 'running' or claim.state == 'kept'
  local is_mine = claim.mail == note.id and (not is_open or claim.owner == note.owner)
  if note.request ~= note.record and (not claim.state or claim.state == 'free' or is_mine) then
    write_answer(note)
  end
  return result
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

-- Its request id is free, since it was not accepted. A caller whose claim was not answered names itself. If the claim
-- was taken over, the relay may have the mail: then the next call takes it over too.
function kinds.release(note)
  local claim = claim_of(note.record, note.request)
  local named = claim.mail == note.id or claim.call == note.id
  if claim.state ~= 'running' or not named or claim.owner ~= note.owner then
    return 1
  end
  if redis.call('HEXISTS', note.request, 'gone') == 1 then
    redis.call('HSET', note.request, 'state', 'free', 'own', '')
  else
    redis.call('DEL', note.request)
    if redis.call('HEXISTS', note.record, 'claim') == 1 then
      redis.call('DEL', note.record)
    end
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
  if claim.mail == note.id and redis.call('HGET', note.request, 'joined') then
    return 2
  end
  redis.call('ZREM', note.own, note.id)
  redis.call('DEL', note.record)
  if claim.mail == note.id then
    redis.call('DEL', note.request)
  end
  return 1
end

-- An open mail is missing in a server that was emptied or set back. `more` is its head. Numbers: its score.
function kinds.rewrite(note)
  if note.owner ~= me then -- its lease was lost meanwhile, and with it the mail
    return 0
  end
  if not redis.call('ZSCORE', note.own, note.id) then
    drop_content(CONTENTS, SUM, note.record, note.id)
    redis.call('DEL', note.record)
    redis.call('HSET', note.record, 'own', note.owner, 'entry', note.octets)
    if note.more ~= '' then
      redis.call('HSET', note.record, 'head', note.more)
    end
    redis.call('ZREM', SETTLED, note.id)
    redis.call('ZREM', ANSWERED, note.id)
    redis.call('ZADD', note.own, note.numbers[1], note.id)
  end
  local claim = claim_of(note.record, note.request)
  if note.request ~= note.record and (not claim.state or claim.state == 'free' or claim.mail == note.id) then
    redis.call('HSET', note.request, 'state', 'kept', 'mail', note.id, 'print', note.fingerprint, 'own', note.owner)
    redis.call('PERSIST', note.request)
  end
  return 1
end

-- A claimed request id is missing there. `octets` is a digest of whose it is. Numbers: for how many milliseconds it is
-- kept from now on; 1 where it was taken over.
function kinds.reclaim(note)
  local claim = claim_of(note.record, note.request)
  local is_lacking = not claim.state or claim.state == 'free' or claim.mail == note.id
  if note.owner ~= me or not is_lacking then
    return 0
  end
  redis.call('HSET', note.request, 'state', 'running', 'mail', note.id, 'print', note.fingerprint, 'own', note.owner)
  if tonumber(note.numbers[2]) == 1 then
    redis.call('HSET', note.request, 'gone', 1)
  end
  redis.call('PEXPIRE', note.request, note.numbers[1])
  if redis.call('EXISTS', note.record) == 0 then
    redis.call('HSET', note.record, 'claim', note.octets .. note.request)
    redis.call('PEXPIRE', note.record, note.numbers[1])
  end
  return 1
end

local results, count = {'OK', 0}, (#KEYS - 8) / 3
for number = 0, count - 1 do
  local own, record, request = unpack(KEYS, 9 + 3 * number, 11 + 3 * number)
  local kind, id, owner, octets, fingerprint, first, second, third, fourth, time, more, caller =
    unpack(ARGV, 6 + 12 * number, 17 + 12 * number)
  local result = kinds[kind]({
    own = own,
    record = record,
    request = request,
    id = id,
    owner = owner,
    octets = octets,
    fingerprint = fingerprint,
    numbers = {first, second, third, fourth},
    time = time,
    more = more,
    caller = caller,
  })
  if result > 1 then
    results[#results + 1] = number
    results[#results + 1] = result
  end
end
if lease_of(me) > RELEASED then
  results[2] = redis.call('HINCRBY', EPOCH, me, count)
end
return results
