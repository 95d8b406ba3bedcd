-- Decides which challenge to mail now: the live one, or a fresh one (otp.policy.Policy.send).
-- KEYS: the names of the record and the clock (as `open` has them), and those of counts (counts.lua).
-- ARGV: the time, how many names the record has, how many earlier ones, then as `question` reads it.
-- Returns {limit, seconds, whether it is a device's limit} where it is refused. Else returns {'', id, key id, expiry,
-- attempts, length, next send, the limits that the log has a line about, most attempts, until when limits are used up}.

local found, now, places, old = open(1, tonumber(ARGV[2]), ARGV[1], tonumber(ARGV[3]))
local asked = question(4, now)
local record = standing(found, asked, old)
if asked.slot.challenge and is_again(asked) then
  note_spent(asked, asked.lane.sends)
  note_spent_elsewhere(asked, tonumber(ARGV[2]))
  return answer_of(asked.slot.challenge, asked.slot.next_send, asked)
end
local next_send = now + asked.rules.resend
local refused, mailed, replaced = hindrance(asked)
if not refused then
  mailed, replaced = choose(asked)
  refused = make_room(record, asked)
end
local counts, box
refused, counts, box = count_elsewhere(refused, asked, tonumber(ARGV[2]), next_send)
if refused then return refused end
mail_it(record, asked, mailed, replaced, next_send)
keep_record(1, places, record, now)
drop_earlier(old)
write_counts(counts, now)
keep_mailbox(box, now)
return answer_of(mailed, asked.slot.next_send, asked)
