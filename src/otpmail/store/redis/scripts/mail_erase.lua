-- Keeps a settled mail without a person, in place of what was read of it. It is behind mail_content.lua.
-- KEYS: the contents, the sum of their octets, the mail's record.
-- ARGV: mail id, octets as they were read, new octets.
-- Returns 1, or 0 where the mail has changed meanwhile.

local record, id = KEYS[3], ARGV[1]
if redis.call('HGET', record, 'settled') ~= ARGV[2] then
  return 0
end
-- The first write removes, if nothing: with full memory none could follow otherwise.
redis.call('ZREM', KEYS[1], '')
drop_content(KEYS[1], KEYS[2], record, id)
redis.call('HSET', record, 'settled', ARGV[3])
return 1
