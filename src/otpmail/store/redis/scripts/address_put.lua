-- Replaces what is known of an address, unless that has changed meanwhile, and announces it to all replicas.
-- KEYS: how many changes there were; for each field that the address may have, the newest first, the hash of its part.
-- ARGV: what is expected in the first of them that is there ('' for nothing), what is to be in the newest ('' for
-- nothing), the channel, the fields. The others are there no more then.
-- Returns 1, or 0 where something else is there than what was expected.

local expected, put, channel, BEHIND = ARGV[1], ARGV[2], ARGV[3], 3
local kept, there = '', {}
for place = 2, #KEYS do
  local value = redis.call('HGET', KEYS[place], ARGV[BEHIND + place - 1])
  if value then
    there[#there + 1] = place
    if #there == 1 then kept = value end
  end
end
if kept ~= expected then return 0 end
if put ~= '' then redis.call('HSET', KEYS[2], ARGV[BEHIND + 1], put) end
for _, place in ipairs(there) do
  if place > 2 or put == '' then redis.call('HDEL', KEYS[place], ARGV[BEHIND + place - 1]) end
end
redis.call('INCR', KEYS[1])
-- The newest is announced last: a replica without room has some then.
for at = #there, 1, -1 do
  if there[at] > 2 then redis.pcall('PUBLISH', channel, cmsgpack.pack({ ARGV[BEHIND + there[at] - 1], '' })) end
end
redis.pcall('PUBLISH', channel, cmsgpack.pack({ ARGV[BEHIND + 1], put }))
return 1
