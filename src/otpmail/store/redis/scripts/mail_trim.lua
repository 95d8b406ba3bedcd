-- Forgets contents of settled mails, which can't be retried then.
-- KEYS: the contents, the sum of their octets; for each content its mail's record.
-- ARGV: for each mail id and octets.
-- Returns 1.

for number = 1, #KEYS - 2 do
  local record, id, size = KEYS[2 + number], ARGV[2 * number - 1], ARGV[2 * number]
  forget_content(KEYS[1], KEYS[2], id, size)
  if redis.call('HSTRLEN', record, 'content') == tonumber(size) then
    redis.call('HDEL', record, 'content')
  end
end
return 1
