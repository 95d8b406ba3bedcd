-- Decides which challenge to mail, and keeps the mail of that one, in one step.
-- KEYS: as in mail_accept.lua for one mail; the names of the code's record and the clock (as `open` has them), and
-- those of counts (counts.lua).
-- ARGV:
--   1  as in mail_accept.lua
--   9  the time, how many names the record has, how many earlier ones
--  12  id, key id, expiry and length of the challenge in the mail
--  16  the next send that the answer to its caller names, and until when the mail uses limits up
--  18  as `question` reads it
-- Returns {'OK', changes counted, the answer about the mail, that of code_send.lua}. An empty answer about the mail:
-- nothing has changed, since it must name another challenge, expiry, length or time, or none may be sent. An empty other
-- answer: the request id came before.

local CLOCKS = 1 -- seconds that the time in an answer may differ from our clock

local why = refusal()
if why then
  return {why}
end
local own, mail, request = KEYS[3], KEYS[4], KEYS[5]
local written = {
  id = ARGV[12], key_id = ARGV[13], expires = tonumber(ARGV[14]), attempts = 0, length = tonumber(ARGV[15]), most = 0
}
local named, named_until = tonumber(ARGV[16]), tonumber(ARGV[17])

local came = came_before(mail, request, ARGV[7], ARGV[4], tonumber(ARGV[3]))
if came then
  join(request, came)
  return {'OK', 0, came, ''}
end
local found, now, places, old = open(6, tonumber(ARGV[10]), ARGV[9], tonumber(ARGV[11]))
local asked = question(18, now)
local record = standing(found, asked, old)
if redis.call('HGET', mail, 'own') == me then -- this very call's, whose answer was lost
  asked.spent_until = named_until
  return {'OK', 0, 'A', answer_of(written, asked.slot.next_send, asked)}
end
local names, counts, box = tonumber(ARGV[10])
local refused = hindrance(asked)
if refused then
  refused = count_elsewhere(refused, asked, names, now + asked.rules.resend)
  return {'OK', 0, '', refused}
end

local mailed, replaced = choose(asked)
local next_send = now + asked.rules.resend
if math.abs(next_send - named) < CLOCKS then next_send = named end
if mailed == asked.fresh and math.abs(mailed.expires - written.expires) < CLOCKS then
  mailed.expires = written.expires
end
refused, counts, box = count_elsewhere(make_room(record, asked), asked, names, next_send)
if refused then return {'OK', 0, '', refused} end
local answer = answer_of(mailed, next_send, asked)
local is_same = mailed.id == written.id and mailed.expires == written.expires and mailed.length == written.length
if not is_same or next_send ~= named or asked.spent_until ~= named_until then return {'OK', 0, '', answer} end

-- The first write of all: with full memory it is refused, and with it the whole step.
local count = redis.call('HINCRBY', EPOCH, me, 1)
keep(own, mail, request, 4)
mail_it(record, asked, mailed, replaced, next_send)
keep_record(6, places, record, now)
drop_earlier(old)
write_counts(counts, now)
keep_mailbox(box, now)
return {'OK', count, 'A', answer}
