-- Replaces what is known of an address, unless that has changed meanwhile, and announces it to all replicas.
-- KEYS: the hash of a part of the addresses, how many changes there were. ARGV: the field, what is expected there ('' for
-- nothing), what it is to be ('' for nothing), the channel.
-- Returns 1, or 0 where something else is there than what was expected.

local kept = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if kept ~= ARGV[2] then return 0 end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
end
redis.call('INCR', KEYS[2])
redis.pcall('PUBLISH', ARGV[4], cmsgpack.pack({ ARGV[1], ARGV[3] }))
return 1
