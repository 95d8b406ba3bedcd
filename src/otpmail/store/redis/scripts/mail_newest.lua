-- Names the open mails of other owners that were accepted last, the newest first.
-- KEYS: the owners; the set of each of the others.
-- ARGV: a time in microseconds, how many, the name of the owner who asks, the names of the others.
-- Returns those accepted at that very time, and as many of the older ones, each as its id and its time. Returns false
-- where there are other owners by now: mails may have moved from one set to another.

local before, most, me = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local PRIORITIES, LANE = 3, 2251799813685248 -- score_of in store/redis/records.py

local others = redis.call('ZCARD', KEYS[1]) - (redis.call('ZSCORE', KEYS[1], me) and 1 or 0)
if others ~= #KEYS - 1 then
  return false
end
for number = 4, #ARGV do
  if not redis.call('ZSCORE', KEYS[1], ARGV[number]) then
    return false
  end
end

local function text(score)
  return string.format('%.0f', score)
end

local named, older = {}, {}
for number = 2, #KEYS do
  for priority = 0, PRIORITIES - 1 do
    local lane = priority * LANE
    local top = text(lane + before)
    for _, mail in ipairs(redis.call('ZRANGEBYSCORE', KEYS[number], top, top)) do
      named[#named + 1] = {mail, text(before)}
    end
    local found =
      redis.call('ZREVRANGEBYSCORE', KEYS[number], '(' .. top, text(lane), 'WITHSCORES', 'LIMIT', 0, most)
    for place = 1, #found, 2 do
      older[#older + 1] = {found[place], found[place + 1] - lane}
    end
  end
end
table.sort(older, function(one, other) return one[2] > other[2] end)
for place = 1, math.min(most, #older) do
  named[#named + 1] = {older[place][1], text(older[place][2])}
end
return named
