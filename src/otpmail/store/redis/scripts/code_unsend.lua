-- Takes back what code_send has changed, since its mail was not sent (otp.policy.Policy.unsend, refuse and withdraw).
-- KEYS: the names of the record and the clock (as `open` has them). ARGV: time, how many names, 0; then 'unsend' or 'refuse',
-- the id of the mailed challenge and the next send, or 'withdraw' and the mark of the call. Behind the next send of
-- 'unsend' stand for how many limits over many addresses the mail has counted, and when; their counts are the last KEYS.

local kind, mark = ARGV[4], ARGV[5]
local record, now, places = open(1, tonumber(ARGV[2]), ARGV[1], 0)
if not record then return 0 end
local slot
for _, known in ipairs(record.slots) do
  local is_it
  if kind == 'withdraw' then
    is_it = known.call == mark and mark ~= NO_CALL
  else
    is_it = known.challenge and known.challenge.id == mark
  end
  if is_it and not slot then slot = known end
end
if not slot then return 0 end
local mail = kind == 'withdraw' and slot.next_send or tonumber(ARGV[6])

local function without(list, one)
  for place, known in ipairs(list) do
    if known == one then
      table.remove(list, place)
      return true
    end
  end
  return false
end

local replaced, counts, box = slot.replaced, {}, nil
local is_latest = slot.next_send == mail or slot.next_send == 0 -- 0: the latest mail was not sent either
if replaced and without(replaced.mails, mail) and #replaced.mails == 0 then
  replaced.challenge.attempts = slot.challenge.attempts
  slot.challenge, slot.replaced = replaced.challenge, nil
  is_latest = true
end
if is_latest then slot.next_send, slot.call = 0, NO_CALL end
if kind == 'refuse' then
  slot.challenge, slot.replaced = nil, nil
else
  local lane = lane_of(record, slot.device)
  if without(lane.sends, mail) then
    put_lane(record, lane)
    if kind == 'unsend' then counts = read_counts(codes_quotas(tonumber(ARGV[7])), tonumber(ARGV[2])) end
    if kind == 'unsend' and ARGV[9] == '1' then box = mailbox_of(tonumber(ARGV[7]), tonumber(ARGV[2])) end
  end
end
for _, one in ipairs(counts) do without_one(one, tonumber(ARGV[8])) end
if box and box.record then
  local strangers = lane_of(box.record, STRANGERS)
  if without(strangers.sends, mail) then put_lane(box.record, strangers) end
end
keep_record(1, places, record, now)
if box and box.record then keep_mailbox(box, now) end
write_counts(counts, now)
return 1
