-- Notes with which keys a replica reads and writes.
-- KEYS: the marks of keys.
-- ARGV: the marks of the replica's keys, for how many milliseconds marks are kept.
-- Returns the marks of all replicas that were there in that time.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('ZADD', KEYS[1], now, ARGV[1])
return redis.call('ZRANGE', KEYS[1], 0, -1)
