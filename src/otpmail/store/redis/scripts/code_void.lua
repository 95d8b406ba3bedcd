-- Ends the live challenges of a scope unused (otp.policy.Policy.void).
-- KEYS: the names of the record and the clock (as `open` has them).
-- ARGV: the time, how many names the record has, how many earlier ones; the digits of a code, the scope, and the id of
-- the one challenge to end, '' for all.
-- Returns 1, or 0 without a record.

local record, now, places, old = open(1, tonumber(ARGV[2]), ARGV[1], tonumber(ARGV[3]))
local scope, id = ARGV[5], ARGV[6]
if old then
  local limits = { digits = tonumber(ARGV[4]), failures = { most = math.huge } }
  record = adopt(record, old, scope, limits)
end
if not record then return 0 end
for _, slot in ipairs(record.slots) do
  if slot.scope == scope and slot.challenge and (id == '' or id == slot.challenge.id) then
    slot.challenge, slot.replaced = nil, nil
  end
end
keep_record(1, places, record, now)
drop_earlier(old)
return 1
