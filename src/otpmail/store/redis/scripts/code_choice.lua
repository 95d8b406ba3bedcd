-- Which challenge is to be mailed, for the scripts that send a code (otp.policy.Policy.send). It is behind counts.lua.

local NEEDED = 60 -- seconds that a mail and a person need
local MOST_MAILS = 8 -- with a challenge that replaced another
local MOST_SLOTS = 64
local MOST_WAITS = 64
local MOST_ENDED = 16
local MOST_UNSENT = 16

local function near_end(lifespan)
  if lifespan > NEEDED then return math.max(lifespan / 2, NEEDED) end
  return lifespan / 2
end

-- Reads what is asked. The life of the fresh challenge begins now. ARGV from `first`:
--      the rules (`rules_of`), then counted from behind them:
--  +0  '1' where limits of mails hold
--  +1  scope, device
--  +3  '1' for the original's contract
--  +4  id, key id, lifespan, length and proof of the fresh challenge
--  +9  its proof if it is a long one
-- +10  how many attempts it has, 0 for as many as are set
-- +11  the limits over many addresses (`quotas_of`)
--      then '1' where the mail counts for a mailbox too
local function question(first, now)
  local rules, at = rules_of(first)
  local id = ARGV[at + 4]
  local quotas, behind = quotas_of(at + 11)
  return {
    quotas = quotas, has_mailbox = ARGV[behind] == '1', reached = {}, spent_until = 0, compat = ARGV[at + 3] == '1',
    now = now, rules = rules, spaced = ARGV[at] == '1', scope = ARGV[at + 1], device = ARGV[at + 2],
    locks = rules.locks or ARGV[at + 3] == '1', call = string.sub(id, -#NO_CALL), long_proof = ARGV[at + 9],
    fresh = {
      id = id, key_id = ARGV[at + 5], expires = now + tonumber(ARGV[at + 6]), attempts = 0,
      length = tonumber(ARGV[at + 7]), proof = ARGV[at + 8], most = tonumber(ARGV[at + 10])
    },
  }
end

-- Returns the record as it is before the mail, and notes the slot that is asked for and its lane.
local function standing(record, asked, old)
  if old then record = adopt(record, old, asked.scope, asked.rules) end
  record = recent(record, asked.now, asked.rules.resend)
  asked.slot = { scope = asked.scope, device = asked.device, next_send = 0, call = NO_CALL }
  for _, slot in ipairs(record.slots) do
    if slot.scope == asked.scope and slot.device == asked.device then asked.slot = slot end
  end
  if ended_by_later(record.slots)[asked.slot] then
    record.slots = only(record.slots, function(slot) return slot ~= asked.slot end)
    asked.slot = { scope = asked.scope, device = asked.device, next_send = 0, call = NO_CALL }
  end
  asked.is_further = not asked.slot.challenge or asked.slot.next_send == 0
  asked.lane = lane_of(record, asked.device)
  asked.failures_free, asked.failed_daily = free_at(asked.rules.failures, asked.lane.failures)
  asked.attacked = asked.failures_free > asked.now
  return record
end

-- Whether the latest mail was asked for by this very call, whose answer was lost.
local function is_again(asked)
  return asked.slot.call == asked.call and asked.call ~= NO_CALL
end

-- Why no mail may be sent to the address, by the limit that lasts longest; false where one may. Notes the limits in
-- shadow that would refuse it (otp.sending.SendingRules._refuse).
local function hindrance(asked)
  local now, resend, is_device = asked.now, asked.rules.resend, asked.lane.device ~= STRANGERS
  local spaced, refused = asked.spaced and not is_again(asked), false
  if asked.attacked and asked.locks then
    local name = asked.failed_daily and 'failures_per_day' or 'failures_per_hour'
    refused = { name, asked.failures_free - now, is_device }
  end
  local free, is_daily = free_at(asked.rules.sends, asked.lane.sends)
  if spaced and free - resend > now then
    if asked.compat or asked.rules.shadows.address then
      asked.reached[1] = { 'address', 100 }
    else
      refused = longer(refused, { is_daily and 'sends_per_day' or 'sends_per_hour', free - resend - now, is_device })
    end
  end
  local next_send = asked.slot.next_send + asked.rules.wait
  if spaced and next_send > now and not asked.compat then
    if asked.rules.shadows.resend then
      asked.reached[#asked.reached + 1] = { 'resend', 100 }
    else
      refused = longer(refused, { 'resend', next_send - now, is_device })
    end
  end
  return refused
end

-- The challenge to mail, the live one or the fresh one, and the one that it has replaced, now or earlier.
local function choose(asked)
  local live, fresh, now = asked.slot.challenge, asked.fresh, asked.now
  if asked.attacked then fresh.length, fresh.proof = LONG, asked.long_proof end
  local is_spent = live and live.attempts >= most_of(live, asked.rules)
  -- A test address has become one since, or is one no longer.
  is_spent = is_spent or (live and (live.key_id == FIXED) ~= (fresh.key_id == FIXED))
  if not live or is_spent or (asked.attacked and live.length ~= LONG) then return fresh end
  if live.expires - now < near_end(fresh.expires - now) then
    fresh.attempts, live.attempts, fresh.most = live.attempts, 0, live.most
    return fresh, { challenge = live, mails = {} }
  end
  return live, asked.slot.replaced
end

-- Which slot of these devices gives way to one more of a device, nil where there is a place (otp.slots._giving_way).
local function giving_way(live, device)
  local counts, most = {}, 0
  for _, slot in ipairs(live) do
    counts[slot.device] = (counts[slot.device] or 0) + 1
    most = math.max(most, counts[slot.device])
  end
  if #live < MOST_SLOTS or (counts[device] or 0) >= MOST_LIVE then return nil end
  local is_own = counts[device] == most
  for _, slot in ipairs(live) do
    if counts[slot.device] == most and (slot.device == device or not is_own) then return slot end
  end
end

-- Makes room for one more slot. Returns why there is no place, false where there is one
-- (otp.slots.with_room).
local function make_room(record, asked)
  if not asked.is_further then return false end
  record.slots = only(record.slots, function(slot) return slot ~= asked.slot end)
  local slots = record.slots
  if #slots < MOST_LIVE then return false end
  local ended = ended_by_later(slots)
  local function mailed(slot) return slot.challenge and slot.next_send ~= 0 end
  local waiting = only(slots, function(slot) return not slot.challenge end)
  local unsent = only(slots, function(slot) return slot.challenge and slot.next_send == 0 end)
  local live = only(slots, function(slot) return mailed(slot) and not ended[slot] end)
  local gone = {}
  if #waiting >= MOST_WAITS then gone[waiting[1]] = true end
  if #ended >= MOST_ENDED then gone[ended[1]] = true end
  if #unsent >= MOST_UNSENT then gone[unsent[1]] = true end
  if asked.device == STRANGERS then
    local long = only(live, function(slot) return slot.device == STRANGERS and slot.challenge.length == LONG end)
    if #long >= MOST_SLOTS then
      local ends = math.huge
      for _, slot in ipairs(long) do ends = math.min(ends, slot.challenge.expires) end
      return { 'slots', ends - asked.now }
    end
  else
    local other = giving_way(only(live, function(slot) return slot.device ~= STRANGERS end), asked.device)
    if other then gone[other] = true end
  end
  record.slots = only(slots, function(slot) return not gone[slot] end)
  return false
end

-- Notes until when these mails have used up the limits of an address, or of its mailbox (otp.sending.SendingRules).
local function note_spent(asked, sends)
  if asked.compat or asked.rules.shadows.address then return end
  local free = free_at(asked.rules.sends, sends) - asked.rules.resend
  if free > asked.now then asked.spent_until = math.max(asked.spent_until, free) end
end

-- Notes until when the limits over many addresses are used up by these counts.
local function note_counts(asked, counts)
  for place, quota in ipairs(asked.quotas) do
    if not quota.is_shadow then
      asked.spent_until = math.max(asked.spent_until, counts_free_at(counts[place], quota.most))
    end
  end
end

-- Notes until when limits elsewhere than at the address are used up, for a mail that counts there already.
local function note_spent_elsewhere(asked, names)
  local counts = read_counts(asked.quotas, names)
  for _, one in ipairs(counts) do recent_counts(one, asked.now) end
  note_counts(asked, counts)
  if asked.has_mailbox then
    local box = recent(mailbox_of(#asked.quotas, names).record, asked.now, asked.rules.resend)
    note_spent(asked, lane_of(box, STRANGERS).sends)
  end
end

-- Notes in the record that the challenge is mailed, and when the next mail may go.
local function mail_it(record, asked, mailed, replaced, next_send)
  if replaced and #replaced.mails == MOST_MAILS then
    replaced = nil
  elseif replaced then
    replaced.mails[#replaced.mails + 1] = next_send
  end
  local slot = asked.slot
  if mailed == asked.fresh or asked.is_further then
    record.slots = only(record.slots, function(known) return known ~= slot end)
    record.slots[#record.slots + 1] = slot
  end
  slot.challenge, slot.next_send, slot.call, slot.replaced = mailed, next_send, asked.call, replaced
  local lane = asked.lane
  lane.sends = noted(lane.sends, next_send, asked.rules.sends)
  put_lane(record, lane)
end

local function answer_of(mailed, next_send, asked)
  return cmsgpack.pack({
    '', mailed.id, mailed.key_id, mailed.expires, mailed.attempts, mailed.length, next_send, asked.reached, mailed.most,
    asked.spent_until
  })
end

-- Counts the mail for the mailbox of an address with a tag, without a write yet (otp.policy.Policy.note). The names of
-- its record are KEYS before those of counts. Returns why it is refused, or false, and what `keep_mailbox` writes.
local function note(asked, names, next_send)
  if not asked.has_mailbox then return false end
  local box, now, resend = mailbox_of(#asked.quotas, names), asked.now, asked.rules.resend
  box.record = recent(box.record, now, resend)
  local lane = lane_of(box.record, STRANGERS)
  local free, is_daily = free_at(asked.rules.sends, lane.sends)
  if asked.spaced and free - resend > now then
    if not (asked.compat or asked.rules.shadows.address) then
      return { is_daily and 'sends_per_day' or 'sends_per_hour', free - resend - now }
    end
    local is_known = false
    for _, one in ipairs(asked.reached) do is_known = is_known or one[1] == 'address' end
    if not is_known then asked.reached[#asked.reached + 1] = { 'address', 100 } end
  end
  lane.sends = noted(lane.sends, next_send, asked.rules.sends)
  put_lane(box.record, lane)
  note_spent(asked, lane.sends)
  return false, box
end

-- Counts the mail elsewhere than at the address, without a write yet. `refused` is why the address refuses it, or
-- false. Returns why the mail is refused, by the limit that lasts longest and packed for the answer, or false. Then
-- come the counts and the mailbox to write. Notes until when the mail uses limits up, the address's own too.
local function count_elsewhere(refused, asked, names, next_send)
  note_spent(asked, noted(asked.lane.sends, next_send, asked.rules.sends))
  local over, counts = admit(asked, names)
  note_counts(asked, counts)
  local crowded, box = note(asked, names, next_send)
  refused = longer(longer(refused, over), crowded)
  return refused and cmsgpack.pack(refused), counts, box
end
