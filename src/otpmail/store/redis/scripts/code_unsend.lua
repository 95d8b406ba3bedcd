-- Takes back what code_send has changed, since its mail was not sent (otp.policy.Policy.unsend, refuse and withdraw).
-- KEYS: the names of the record and the clock (as `open` has them). The last are the names of the mailbox's record, and
-- those of counts (counts.lua).
-- ARGV:
--   1  the time, how many names the record has, 0
--   4  'unsend' or 'refuse', and the id of the mailed challenge; or 'withdraw', and the mark of the call
--   6  the next send that went with the mail, '' for 'withdraw'
--   7  the seconds between two mails
--   8  for how many limits over many addresses the mail has counted
--   9  '1' where it has counted for a mailbox too
-- Returns 1, or 0 where neither the mail nor its slot is known.

local kind, mark, mail, resend = ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local names, limits, has_mailbox = tonumber(ARGV[2]), tonumber(ARGV[8]), ARGV[9] == '1'
local record, now, places = open(1, names, ARGV[1], 0)
if not record then return 0 end

-- The slot of the mail, and whether another challenge has replaced the mail's in it (otp.taken_back).
local slot, is_replaced
for _, known in ipairs(record.slots) do
  if kind == 'withdraw' then
    if known.call == mark and mark ~= NO_CALL and not slot then slot, mail = known, known.next_send end
  elseif known.challenge and known.challenge.id == mark then
    slot, is_replaced = known, false
    break
  elseif not slot then
    local older = known.replaced and known.replaced.challenge.id == mark
    if older or (not known.challenge and known.next_send == mail) then slot, is_replaced = known, older end
  end
end

-- Takes the mail out of its slot. Returns whether the slot knew it.
local function take_out()
  local replaced, is_known = slot.replaced, slot.next_send == mail
  local is_latest = is_known or slot.next_send == 0 -- 0: the latest mail was not sent either
  if replaced and without(replaced.mails, mail) then
    is_known = true
    if #replaced.mails == 0 then
      replaced.challenge.attempts = slot.challenge.attempts
      slot.challenge, slot.replaced = replaced.challenge, nil
      is_latest = true
    end
  end
  if is_latest then slot.next_send, slot.call = 0, NO_CALL end
  return is_known
end

local is_own = slot and slot.next_send == mail and slot.call == mark:sub(-#NO_CALL) -- the call that made the challenge
local is_known = slot and not is_replaced and take_out()
if kind == 'refuse' then
  if not slot then return 0 end
  -- A challenge that another mail brings stays live, and so does the one that the refused one had replaced.
  if is_replaced then
    slot.replaced = nil
  elseif slot.challenge and slot.challenge.id == mark and is_own then
    slot.challenge, slot.replaced = nil, nil
  end
  keep_record(1, places, record, now)
  return 1
end
if kind == 'withdraw' and not slot then return 0 end
-- The lane where it counts: that of the slot's device, or strangers' where too many devices had one.
local lanes = only(record.lanes, function(lane) return slot and lane.device == slot.device end)
for _, lane in ipairs(record.lanes) do lanes[#lanes + 1] = lane end
for _, lane in ipairs(lanes) do
  if without(lane.sends, mail) then
    put_lane(record, lane)
    is_known = true
    break
  end
end
if not (slot or is_known) then return 0 end
keep_record(1, places, record, now)
if not is_known then return 1 end
if has_mailbox then
  local box = mailbox_of(limits, names)
  local strangers = box.record and lane_of(box.record, STRANGERS)
  if strangers and without(strangers.sends, mail) then
    put_lane(box.record, strangers)
    keep_mailbox(box, now)
  end
end
local counts = read_counts(codes_quotas(limits), names)
for _, one in ipairs(counts) do without_one(one, mail - resend) end
write_counts(counts, now)
return 1
