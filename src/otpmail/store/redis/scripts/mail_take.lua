-- Moves mails of an owner that lost its lease to this one, and returns their octets and progress, and whether an owner
-- has ended since that was written without handing them over. It also returns mails that an earlier try has moved, whose
-- answer was lost.
-- It stops at MOST octets, but not before the first mail: the caller asks again for the rest.
-- KEYS: the other's set, own set; the record of each mail. ARGV: the other's name; the id of each mail.

local why = refusal()
if why then
  return {why}
end
local from, own, other = KEYS[3], KEYS[4], ARGV[3]
local ends = lease_of(other)
if ends > LEFT then
  return {'OK'}
end
local MOST = 1048576
local answers, octets = {'OK'}, 0
for number = 1, #KEYS - 4 do
  local record, id = KEYS[4 + number], ARGV[3 + number]
  octets = octets + redis.call('HSTRLEN', record, 'entry')
  if octets > MOST and #answers > 1 then
    break
  end
  local score = redis.call('ZSCORE', from, id)
  if score then
    redis.call('ZREM', from, id)
    if redis.call('HGET', record, 'own') == other then
      redis.call('ZADD', own, score, id)
      redis.call('HSET', record, 'own', me)
      redis.call('HDEL', record, 'denied')
      if ends ~= LEFT then
        redis.call('HSET', record, 'orphaned', 1)
      end
    end
  end
  local place = redis.call('ZSCORE', own, id)
  if place then
    local kept = redis.call('HMGET', record, 'entry', 'progress', 'orphaned')
    answers[#answers + 1] = {id, place, kept[1], kept[2], kept[3]}
  end
end
redis.call('HINCRBY', EPOCH, me, #answers - 1)
return answers
