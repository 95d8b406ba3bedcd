-- Decides which challenge to mail now: the live one, or a fresh one (otp.policy.Policy.send).
-- KEYS: the record. ARGV: what `question` reads.
-- Returns {why refused, seconds} or {'', id, key id, expiry, attempts, next send, replaced or not, the same of that one}.

local key, asked = KEYS[1], question(1)
local record = standing(key, asked.now)
if record.challenge and record.challenge.id == asked.fresh.id then -- this very call's, whose answer was lost
  return answer_of(record.challenge, record.next_send)
end
local refused = hindrance(record, asked)
if refused then return refused end

local mailed, replaced = choose(record, asked)
record.challenge = mailed
record.next_send = asked.now + asked.resend
write(key, record, asked.now)
return answer_of(mailed, record.next_send, replaced)
