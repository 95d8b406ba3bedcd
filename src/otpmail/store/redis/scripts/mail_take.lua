-- Moves mails of an owner that lost its lease to this one. Mails that an earlier try has moved, whose answer was lost,
-- come again. It stops at MOST octets, and the caller asks again for the rest.
-- KEYS: the other's set, own set; the record of each mail.
-- ARGV: the other's name; the id of each mail.
-- Returns {'OK', changes counted, the mails...}. Each is {id, score, octets, progress, '1' where an owner has ended
-- without handing it over since the progress was written}. A mail that is larger than MOST comes as its size.

local why = refusal()
if why then
  return {why}
end
local from, own, other = KEYS[3], KEYS[4], ARGV[3]
local ends = lease_of(other)
if ends > RELEASED then
  return {'OK', 0}
end
-- The first write removes, if nothing: with full memory none could follow otherwise.
redis.call('ZREM', OWNERS, '')
local MOST = 262144
local answers, octets = {'OK', 0}, 0
for number = 1, #KEYS - 4 do
  local record, id = KEYS[4 + number], ARGV[3 + number]
  local size = redis.call('HSTRLEN', record, 'entry')
  octets = octets + (size > MOST and 0 or size)
  if octets > MOST and #answers > 2 then
    break
  end
  local score = redis.call('ZSCORE', from, id)
  if score then
    redis.call('ZREM', from, id)
    if redis.call('HGET', record, 'own') == other then
      redis.call('ZADD', own, score, id)
      redis.call('HSET', record, 'own', me)
      redis.call('HDEL', record, 'denied')
      if ends ~= RELEASED then
        redis.call('HSET', record, 'orphaned', 1)
      end
    end
  end
  local place = redis.call('ZSCORE', own, id)
  if place then
    local kept = redis.call('HMGET', record, 'progress', 'orphaned')
    local entry = size > MOST and size or redis.call('HGET', record, 'entry')
    answers[#answers + 1] = {id, place, entry, kept[1], kept[2]}
  end
end
answers[2] = redis.call('HINCRBY', EPOCH, me, #answers - 2)
return answers
