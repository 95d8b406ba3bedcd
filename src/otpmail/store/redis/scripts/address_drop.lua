-- Drops what is known of addresses that has ended. All replicas have forgotten it by themselves.
-- KEYS: the hash of a part of the addresses. ARGV: the time, then fields. A value begins with the time when it ends.

local now = tonumber(ARGV[1])
for at = 2, #ARGV do
  local kept = redis.call('HGET', KEYS[1], ARGV[at])
  if kept and struct.unpack('<d', kept) <= now then redis.call('HDEL', KEYS[1], ARGV[at]) end
end
return 0
