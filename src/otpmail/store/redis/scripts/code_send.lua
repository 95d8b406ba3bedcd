-- Decides which challenge to mail now: the live one, or a fresh one (otp.policy.Policy.send).
-- KEYS: the names of the record and the clock (as `open` has them). ARGV: time, how many names, the version to write, and
-- what `question` reads.
-- Returns {why refused, seconds} or {'', id, key id, expiry, attempts, next send}.

local found, now, places = open(1, tonumber(ARGV[2]), ARGV[1])
local record, asked = standing(found, now), question(4, now)
if record.challenge and is_again(record, asked) then return answer_of(record.challenge, record.next_send) end
local refused = hindrance(record, asked)
if refused then return refused end

local mailed, replaced = choose(record, asked)
mail_it(record, asked, mailed, replaced, now + asked.resend)
keep_record(1, places, record, now, tonumber(ARGV[3]))
return answer_of(mailed, record.next_send)
