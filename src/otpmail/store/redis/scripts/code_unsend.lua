-- Takes back what code_send has changed, since its mail was not sent (otp.policy.Policy.unsend and refuse).
-- KEYS: the record. ARGV: time, whether the relay refused the address ('1'), id of the mailed challenge, next send, then
-- id, key id, expiry and proof of the challenge that it replaced, if it did.

local key = KEYS[1]
local refused = ARGV[2] == '1'
local record = read(key)
if not record or not record.challenge or record.challenge.id ~= ARGV[3] then return 0 end

local is_latest = record.next_send == tonumber(ARGV[4]) or record.next_send == 0 -- 0: the latest mail was not sent either
if not is_latest and not refused then return 0 end
if is_latest then
  record.next_send = 0
  if ARGV[5] then
    local attempts = record.challenge.attempts
    record.challenge =
      { id = ARGV[5], key_id = ARGV[6], expires = tonumber(ARGV[7]), attempts = attempts, proof = ARGV[8] }
  end
end
if refused then record.challenge = nil end
write(key, record, time(ARGV[1]))
return 1
