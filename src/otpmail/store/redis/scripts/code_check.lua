-- Counts an attempt, compares, and uses the code up if it is right (otp.policy.Policy.check).
-- KEYS: the names of the record and the clock (as `open` has them), a record that belongs to nobody, the names of the
-- record of a mailbox, and those of counts (counts.lua).
-- ARGV:
--   1  the time, how many names the record has, how many earlier ones
--   4  the rules (`rules_of`), then counted from behind them:
--  +0  scope, device
--  +2  the id that the attempt is bound to, '' for none
--  +3  the digest of a request id, '' for none
--  +4  a device for a right code
--  +5  '1' for the original's contract
--  +6  which code the text can be, as a number and as letters: lengths
--  +8  the channel of used codes, and our name there
-- +10  '1' where the address shares the limits of mails of a mailbox
-- +11  the limits over many addresses (`quotas_of`)
--      then, for each of our keys and for the earlier record, the key's id and the proof
-- Returns {result, attempts left, retry time or false, device, time}. A right code adds id and expiry of the challenge,
-- a wrong one that counts adds the limits that the log has a line about, unless the answer is an earlier one. Without
-- attempts, the limit that is used up comes last for the original's contract.
-- Returns {limit, seconds} where a limit over many addresses is reached.

local ANSWER = 60 -- seconds for which the same check has the same answer
local MOST_ANSWERS = 4 -- of each kind

local names = tonumber(ARGV[2])
local found, now, places, old = open(1, names, ARGV[1], tonumber(ARGV[3]))
local rules, at = rules_of(4)
local asked = {
  scope = ARGV[at], device = ARGV[at + 1], only = ARGV[at + 2], request = ARGV[at + 3], new_device = ARGV[at + 4],
  compat = ARGV[at + 5] == '1', locks = rules.locks or ARGV[at + 5] == '1', now = now, reached = {},
  lengths = { [tonumber(ARGV[at + 6])] = true, [tonumber(ARGV[at + 7])] = true }
}
local proofs
asked.quotas, proofs = quotas_of(at + 11)
local has_mailbox = ARGV[at + 10] == '1'
local nobody = KEYS[#KEYS - (#asked.quotas + (has_mailbox and 1 or 0)) * names]
if old then found = adopt(found, old, asked.scope, rules) end
local record = recent(found, now, rules.resend)
for _, answer in ipairs(record.answers) do
  if answer[1] == asked.request then return cmsgpack.pack(answer[3]) end
end

-- That of the device, else strangers'; of any device if its challenge is named.
local function slot_of()
  local best
  local ended = ended_by_later(record.slots)
  for _, slot in ipairs(record.slots) do
    if slot.scope == asked.scope and not ended[slot] then
      if slot.challenge and slot.challenge.id == asked.only then return slot end
      if slot.device == asked.device or (slot.device == STRANGERS and not best) then best = slot end
    end
  end
  return best
end

-- Without a challenge the same is compared and written for nobody, so that the time tells no case from another.
local slot = slot_of() or { scope = asked.scope, device = STRANGERS, next_send = 0, call = NO_CALL }
local challenge = slot.challenge or
  { id = string.rep('\0', 16), key_id = '', expires = 0, attempts = 0, length = -2, most = 0,
    proof = string.rep('\0', 32) }
local matches = false
for place = proofs, #ARGV, 2 do
  local is_key, is_code = ARGV[place] == challenge.key_id, ARGV[place + 1] == challenge.proof
  matches = (is_key and is_code) or matches
end

local lane = lane_of(record, asked.device)
local spent, spent_daily = free_at(rules.failures, lane.failures)
local is_live = slot.challenge and (asked.only == '' or asked.only == challenge.id)
-- Limits over many addresses are for strangers, but at a long code (otp.policy.Policy.is_limited).
local is_limited = lane.device == STRANGERS and not (is_live and challenge.length == LONG)
local refused, counts = admit(asked, names, not is_limited)
if refused then return cmsgpack.pack(refused) end

local left = most_of(challenge, rules) - challenge.attempts
local is_spent = spent > now and not (is_live and challenge.length == LONG)
local is_locked = is_spent and asked.locks
-- When the limits of the mailbox let one more mail go (otp.policy.Policy.mails_at).
local mails_at = 0
if has_mailbox then
  local box = recent(mailbox_of(#asked.quotas, names).record, now, rules.resend)
  mails_at = free_at(rules.sends, lane_of(box, STRANGERS).sends) - rules.resend
end
-- When a code may be requested again (otp.sending.SendingRules.next_code_at).
local again = math.max(now, slot.next_send + rules.wait)
if asked.compat then -- the limits of mails are in shadow there
  again = is_locked and spent or again
else
  if not rules.shadows.address then
    local mails = free_at(rules.sends, lane.sends) - rules.resend
    again = math.max(again, mails, mails_at)
  end
  if is_locked then again = math.max(again, spent) end
end
local answer = { 'no_live_code', 0, false, '', 0 }
local is_used, is_counted = false, false
local until_then = now + ANSWER
if is_spent or (is_live and left <= 0) then
  if is_locked then until_then = math.min(until_then, spent) end
  answer = { 'too_many_attempts', 0, again, '', 0 }
elseif is_live and matches then
  is_used = true
  local device = asked.device == STRANGERS and asked.new_device or asked.device
  answer = { 'valid', 0, false, device, now, challenge.id, challenge.expires }
elseif is_live and (not asked.lengths[challenge.length] or challenge.length == LONG) then
  answer = { 'wrong_code', left, false, '', 0 }
elseif is_live then
  is_counted = true
  answer = { 'wrong_code', left - 1, false, '', 0 }
end

-- The answer, which is kept without the limit that is used up (otp.sending.SendingRules.used_up).
local function told()
  if asked.compat and answer[1] == 'too_many_attempts' then
    answer[6] = is_spent and (spent_daily and 'failures_per_day' or 'failures_per_hour') or 'attempts'
  end
  return cmsgpack.pack(answer)
end

-- A free answer changes nothing but the answers. No record begins with one, or ends much later for it.
local is_free = not (is_used or is_counted)
local is_kept = not is_free or (asked.request ~= '' and found and (#record.slots > 0 or #record.lanes > 0))
if is_used then
  record.slots = only(record.slots, function(known) return known ~= slot end)
  if asked.device ~= STRANGERS then
    record.lanes = only(record.lanes, function(known) return known.device ~= asked.device end)
  end
elseif is_counted or not is_kept then
  challenge.attempts = challenge.attempts + 1
  lane.failures = noted(lane.failures, now, rules.failures)
  put_lane(record, lane)
end
if not (is_counted and is_limited) then
  for _, one in ipairs(counts) do without_one(one, now) end
end
if not is_kept then
  write(nobody, record, now)
  write_counts(counts, now)
  return told()
end

local function kind_of(known) return known[4] and 'free' or known[3][1] end

if asked.request ~= '' then
  local kept, same, oldest = { asked.request, until_then, answer, is_free or nil }, 0, nil
  for place, known in ipairs(record.answers) do
    if kind_of(known) == kind_of(kept) then same, oldest = same + 1, oldest or place end
  end
  if same >= MOST_ANSWERS then table.remove(record.answers, oldest) end
  record.answers[#record.answers + 1] = kept
end
-- With full memory a server lets no script begin with SET, but with DEL: a right code is valid all the same.
if is_used and #places > 0 then redis.call('DEL', unpack(places)) end
keep_record(1, is_used and {} or places, record, now)
drop_earlier(old)
write_counts(counts, now)
if not is_used then
  if is_counted then answer[6] = is_limited and asked.reached or {} end
  return told()
end
-- Nothing else depends on its receivers, so the log only warns of a user without this right (store/redis/used.py).
local request = asked.request ~= '' and asked.request or string.rep('\0', 8)
local use = struct.pack('<c8c16dc8', ARGV[at + 9], challenge.id, challenge.expires, request)
redis.pcall('PUBLISH', ARGV[at + 8], use)
return cmsgpack.pack(answer)
