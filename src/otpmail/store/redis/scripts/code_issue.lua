-- Decides which challenge to mail, and keeps the mail of that one, in one step.
-- KEYS: as in mail_accept.lua for one mail; the record of the code.
-- ARGV: as in mail_accept.lua; id, key id and expiry of the challenge in the mail, and the next send that its answer
-- names; what `question` reads.
-- Returns {'OK', changes counted, the answer about the mail, that of code_send.lua}. Without an answer about the mail
-- nothing has changed: another challenge is to be mailed, or none may be. Without the other the request id came before.

local CLOCKS = 1 -- seconds by which an answer may name an earlier next send than our clock does

local why = refusal()
if why then
  return {why}
end
local own, mail, request, key = KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local written = { id = ARGV[9], key_id = ARGV[10], expires = tonumber(ARGV[11]), attempts = 0 }
local named, asked = tonumber(ARGV[12]), question(13)

local came = came_before(mail, request, ARGV[7], ARGV[4], tonumber(ARGV[3]))
if came then
  join(request, came)
  return {'OK', 0, came, ''}
end
local record = standing(key, asked.now)
if redis.call('HGET', mail, 'own') == me then -- this very call's, whose answer was lost
  return {'OK', 0, 'A', answer_of(written, record.next_send)}
end
local refused = hindrance(record, asked)
if refused then return {'OK', 0, '', refused} end

local mailed, replaced = choose(record, asked)
local next_send = asked.now + asked.resend
if named < next_send and next_send - named < CLOCKS then next_send = named end
local answer = answer_of(mailed, next_send, replaced)
if mailed.id ~= written.id then return {'OK', 0, '', answer} end

-- The first write of all: with full memory it is refused, and with it the whole step.
local count = redis.call('HINCRBY', EPOCH, me, 1)
keep(own, mail, request, 4)
record.challenge, record.next_send = mailed, next_send
write(key, record, asked.now)
return {'OK', count, 'A', answer}
