-- Decides which challenge to mail now: the live one, or a fresh one (otp.policy.Policy.send).
-- KEYS: the record. ARGV: time, attempts, failures an hour, seconds between mails, whether they hold ('1'), then id, key
-- id, expiry and proof of the fresh challenge.
-- Returns {why refused, seconds} or {'', id, key id, expiry, attempts, next send, replaced or not, the same of that one}.

local NEEDED = 60 -- seconds that a mail and a person need

local function near_end(lifespan)
  if lifespan > NEEDED then return math.max(lifespan / 2, NEEDED) end
  return lifespan / 2
end

local key = KEYS[1]
local now = time(ARGV[1])
local attempts, failures_per_hour, resend = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local fresh = { id = ARGV[6], key_id = ARGV[7], expires = tonumber(ARGV[8]), attempts = 0, proof = ARGV[9] }

local function answer_of(mailed, next_send, replaced)
  local answer = { '', mailed.id, mailed.key_id, mailed.expires, mailed.attempts, next_send }
  if replaced then
    answer[7], answer[8], answer[9], answer[10] = replaced.id, replaced.key_id, replaced.expires, replaced.attempts
  end
  return cmsgpack.pack(answer)
end

local record = recent(read(key) or { failures = {}, next_send = 0 }, now)
if record.challenge and record.challenge.id == fresh.id then -- this very call's, whose answer was lost
  return answer_of(record.challenge, record.next_send)
end
local blocked = blocked_until(record, now, failures_per_hour)
if blocked > now then return cmsgpack.pack({ 'blocked', blocked - now }) end
if ARGV[5] == '1' and record.next_send > now then return cmsgpack.pack({ 'spaced', record.next_send - now }) end

local live, mailed, replaced = record.challenge, record.challenge, nil
if not live or live.attempts >= attempts then
  mailed = fresh
elseif live.expires - now < near_end(fresh.expires - now) then
  fresh.attempts = live.attempts
  mailed, replaced = fresh, live
end
record.challenge = mailed
record.next_send = now + resend
write(key, record, now)
return answer_of(mailed, record.next_send, replaced)
