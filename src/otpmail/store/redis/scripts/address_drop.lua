-- Drops records of addresses that have ended. All replicas have forgotten them by themselves.
-- KEYS: the hash of a part of the addresses.
-- ARGV: the time in seconds, then fields. A value begins with the time when it ends.
-- Returns 0.

local now = tonumber(ARGV[1])
for at = 2, #ARGV do
  local kept = redis.call('HGET', KEYS[1], ARGV[at])
  if kept and struct.unpack('<d', kept) <= now then redis.call('HDEL', KEYS[1], ARGV[at]) end
end
return 0
