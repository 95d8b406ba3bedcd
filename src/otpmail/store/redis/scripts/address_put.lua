-- Replaces the record of an address, unless it has changed meanwhile, and announces it to all replicas.
-- KEYS: the count of changes; for each field that the address may have, the newest first, the hash of its part.
-- ARGV:
--   1  the record that is expected in the first of the fields that is there, '' for none
--   2  the record for the newest field, '' for none; the other fields are dropped
--   3  the channel
--   4  the fields, the newest first
-- Returns 1, or 0 where another record is there than the expected one.

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
