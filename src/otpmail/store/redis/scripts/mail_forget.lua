-- Forgets settled mails with their request ids. A mail that was opened again meanwhile stays as it is.
-- KEYS: the settled mails of their kind, the contents, the sum of their octets. Then for each mail its record and that
-- of its request id (as in mail_note).
-- ARGV: the id of each mail.
-- Returns 1.

for number = 0, (#KEYS - 3) / 2 - 1 do
  local record, request, id = KEYS[4 + 2 * number], KEYS[5 + 2 * number], ARGV[1 + number]
  redis.call('ZREM', KEYS[1], id)
  if redis.call('HEXISTS', record, 'settled') == 1 then
    drop_content(KEYS[2], KEYS[3], record, id)
    redis.call('DEL', record)
    if request ~= record and redis.call('HGET', request, 'mail') == id then
      redis.call('DEL', request)
    end
  end
end
return 1
