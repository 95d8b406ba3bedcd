-- Counts an attempt, compares, and uses the code up if it is right (otp.policy.Policy.check).
-- KEYS: the names of the record and the clock (as `open` has them), and a record that belongs to nobody. ARGV: time,
-- how many names, the version to write, attempts, failures an hour, the id that the attempt is bound to or ''. Then
-- whether the text can be a code ('1'), the channel of used codes, our name there, and for each key id and proof.
-- Returns {result, attempts left, retry time}, with id and expiry of the challenge behind that for a right code.

local names, version, nobody = tonumber(ARGV[2]), tonumber(ARGV[3]), KEYS[#KEYS]
local attempts, failures_per_hour, only = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]

local found, now, places = open(1, names, ARGV[1])
local record = found or { failures = {}, next_send = 0, call = NO_CALL }
local left = recent(record, now)
local blocked = blocked_until(left, now, failures_per_hour)
local challenge = left.challenge

-- Without a challenge the same is compared and written for nobody, so that the time tells no case from another.
local compared = challenge or { id = string.rep('\0', 16), key_id = '', expires = 0, attempts = 0, proof = NO_PROOF }
local matches = false
for place = 10, #ARGV, 2 do
  local is_key, is_code = ARGV[place] == compared.key_id, ARGV[place + 1] == compared.proof
  matches = (is_key and is_code) or matches
end

local failures = from_failure(left.failures, #left.failures - failures_per_hour + 2)
failures[#failures + 1] = now
local counted = {
  challenge = {
    id = compared.id, key_id = compared.key_id, expires = compared.expires, attempts = compared.attempts + 1,
    proof = compared.proof
  },
  failures = failures,
  next_send = record.next_send,
  call = left.call,
  replaced = left.replaced,
}

local answer
if not found then
  answer = { 'no_live_code', 0, 0 }
elseif blocked > now then
  answer = { 'too_many_attempts', 0, blocked }
elseif not challenge or (only ~= '' and only ~= challenge.id) then
  answer = { 'no_live_code', 0, 0 }
elseif challenge.attempts >= attempts then
  answer = { 'too_many_attempts', 0, math.max(now, record.next_send) }
elseif matches then
  redis.call('DEL', unpack(places))
  -- Nothing else depends on its receivers, so the log only warns of a user without this right (store/redis/used.py).
  redis.pcall('PUBLISH', ARGV[8], struct.pack('<c8c16d', ARGV[9], challenge.id, challenge.expires))
  return cmsgpack.pack({ 'valid', 0, 0, challenge.id, challenge.expires })
elseif ARGV[7] ~= '1' then
  answer = { 'wrong_code', attempts - challenge.attempts, 0 }
else
  keep_record(1, places, counted, now, version)
  return cmsgpack.pack({ 'wrong_code', attempts - challenge.attempts - 1, 0 })
end
write(nobody, counted, now, version)
return cmsgpack.pack(answer)
