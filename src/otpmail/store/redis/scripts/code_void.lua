-- Ends the live challenge unused (otp.policy.Policy.void). KEYS: the record. ARGV: time, and an id or ''.

local key = KEYS[1]
local record = read(key)
if not record or not record.challenge then return 0 end
if ARGV[2] ~= '' and ARGV[2] ~= record.challenge.id then return 0 end
record.challenge = nil
write(key, record, time(ARGV[1]))
return 1
