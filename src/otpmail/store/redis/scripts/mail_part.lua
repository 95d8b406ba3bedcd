-- Reads a part of a field of a mail's record, which is too large for one reply.
-- KEYS: the mail's record.
-- ARGV: the field; its first and last octet, counted from 1.
-- Returns the octets.

return string.sub(redis.call('HGET', KEYS[1], ARGV[1]) or '', ARGV[2], ARGV[3])
