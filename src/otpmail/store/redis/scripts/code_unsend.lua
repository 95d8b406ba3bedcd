-- Takes back what code_send has changed, since its mail was not sent (otp.policy.Policy.unsend, refuse and withdraw).
-- KEYS: the names of the record and the clock (as `open` has them). ARGV: time, how many names, the version to write.
-- Then 'unsend' or 'refuse', the id of the mailed challenge and the next send; or 'withdraw' and the mark of the call.

local kind, mark = ARGV[4], ARGV[5]
local record, now, places = open(1, tonumber(ARGV[2]), ARGV[1])
if not record then return 0 end
local next_send
if kind == 'withdraw' then
  if record.call ~= mark or mark == NO_CALL then return 0 end
  next_send = record.next_send
elseif record.challenge and record.challenge.id == mark then
  next_send = tonumber(ARGV[6])
else
  return 0
end

local function without(mails, mail)
  for place, one in ipairs(mails) do
    if one == mail then
      table.remove(mails, place)
      return true
    end
  end
  return false
end

local changed = kind == 'refuse'
local replaced = record.replaced
local is_latest = record.next_send == next_send or record.next_send == 0 -- 0: the latest mail was not sent either
if replaced and without(replaced.mails, next_send) then
  changed = true
  if #replaced.mails == 0 then
    replaced.challenge.attempts = record.challenge.attempts
    record.challenge, record.replaced = replaced.challenge, nil
    is_latest = true
  end
end
if is_latest then
  changed = true
  record.next_send, record.call = 0, NO_CALL
end
if kind == 'refuse' then
  record.challenge, record.replaced = nil, nil
end
if changed then
  keep_record(1, places, record, now, tonumber(ARGV[3]))
end
return 1
