-- Which challenge is to be mailed, for the scripts that send a code (otp.policy.Policy.send).

local NEEDED = 60 -- seconds that a mail and a person need
local MOST_MAILS = 8 -- with a challenge that replaced another

local function near_end(lifespan)
  if lifespan > NEEDED then return math.max(lifespan / 2, NEEDED) end
  return lifespan / 2
end

-- ARGV from `first`: attempts, failures an hour, seconds between mails, whether they hold ('1'), then id, key id,
-- lifespan and proof of the fresh challenge. Its life begins now.
local function question(first, now)
  local id = ARGV[first + 4]
  return {
    now = now, attempts = tonumber(ARGV[first]), failures_per_hour = tonumber(ARGV[first + 1]),
    resend = tonumber(ARGV[first + 2]), spaced = ARGV[first + 3] == '1', call = string.sub(id, -#NO_CALL),
    fresh = {
      id = id, key_id = ARGV[first + 5], expires = now + tonumber(ARGV[first + 6]), attempts = 0,
      proof = ARGV[first + 7]
    },
  }
end

-- The record as it is, or that of an address without one.
local function standing(record, now)
  return recent(record or { failures = {}, next_send = 0, call = NO_CALL }, now)
end

-- Whether the latest mail was asked for by this very call, whose answer was lost.
local function is_again(record, asked)
  return record.call == asked.call and asked.call ~= NO_CALL
end

-- Why no mail may be sent, packed for the answer; false where one may.
local function hindrance(record, asked)
  local now = asked.now
  local blocked = blocked_until(record, now, asked.failures_per_hour)
  if blocked > now then return cmsgpack.pack({ 'blocked', blocked - now }) end
  if asked.spaced and record.next_send > now and not is_again(record, asked) then
    return cmsgpack.pack({ 'spaced', record.next_send - now })
  end
  return false
end

-- The challenge to mail, the live one or the fresh one, and the one that it has replaced, now or earlier.
local function choose(record, asked)
  local live, fresh = record.challenge, asked.fresh
  if not live or live.attempts >= asked.attempts then return fresh end
  if live.expires - asked.now < near_end(fresh.expires - asked.now) then
    fresh.attempts = live.attempts
    return fresh, { challenge = live, mails = {} }
  end
  return live, record.replaced
end

-- Notes in the record that the challenge is mailed, and when the next mail may go.
local function mail_it(record, asked, mailed, replaced, next_send)
  if replaced and #replaced.mails == MOST_MAILS then
    replaced = nil
  elseif replaced then
    replaced.mails[#replaced.mails + 1] = next_send
  end
  record.challenge, record.next_send, record.call, record.replaced = mailed, next_send, asked.call, replaced
end

local function answer_of(mailed, next_send)
  return cmsgpack.pack({ '', mailed.id, mailed.key_id, mailed.expires, mailed.attempts, next_send })
end
