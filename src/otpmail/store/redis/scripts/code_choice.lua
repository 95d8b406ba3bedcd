-- Which challenge is to be mailed, for the scripts that send a code (otp.policy.Policy.send).

local NEEDED = 60 -- seconds that a mail and a person need

local function near_end(lifespan)
  if lifespan > NEEDED then return math.max(lifespan / 2, NEEDED) end
  return lifespan / 2
end

-- ARGV from `first`: time, attempts, failures an hour, seconds between mails, whether they hold ('1'), then id, key id,
-- expiry and proof of the fresh challenge.
local function question(first)
  return {
    now = time(ARGV[first]), attempts = tonumber(ARGV[first + 1]), failures_per_hour = tonumber(ARGV[first + 2]),
    resend = tonumber(ARGV[first + 3]), spaced = ARGV[first + 4] == '1',
    fresh = {
      id = ARGV[first + 5], key_id = ARGV[first + 6], expires = tonumber(ARGV[first + 7]), attempts = 0,
      proof = ARGV[first + 8]
    },
  }
end

-- The record as it is, or that of an address without one.
local function standing(key, now)
  return recent(read(key) or { failures = {}, next_send = 0 }, now)
end

-- Why no mail may be sent, packed for the answer; false where one may.
local function hindrance(record, asked)
  local now = asked.now
  local blocked = blocked_until(record, now, asked.failures_per_hour)
  if blocked > now then return cmsgpack.pack({ 'blocked', blocked - now }) end
  if asked.spaced and record.next_send > now then return cmsgpack.pack({ 'spaced', record.next_send - now }) end
  return false
end

-- The challenge to mail, the live one or the fresh one, and the live one that it replaces.
local function choose(record, asked)
  local live, fresh = record.challenge, asked.fresh
  if not live or live.attempts >= asked.attempts then return fresh end
  if live.expires - asked.now < near_end(fresh.expires - asked.now) then
    fresh.attempts = live.attempts
    return fresh, live
  end
  return live
end

local function answer_of(mailed, next_send, replaced)
  local answer = { '', mailed.id, mailed.key_id, mailed.expires, mailed.attempts, next_send }
  if replaced then
    answer[7], answer[8], answer[9], answer[10] = replaced.id, replaced.key_id, replaced.expires, replaced.attempts
  end
  return cmsgpack.pack(answer)
end
