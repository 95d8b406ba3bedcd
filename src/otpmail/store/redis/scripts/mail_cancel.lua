-- Asks the owner of a mail to cancel it, if the mail has not settled.
-- KEYS: the mail's record; the cancels of its owner.
-- ARGV: mail id, owner, for how many milliseconds it is asked.
-- Returns 1, or 0 where that is not its owner, as after its end.

if redis.call('HGET', KEYS[1], 'own') ~= ARGV[2] then
  return 0
end
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
