-- Ends the live challenge unused (otp.policy.Policy.void).
-- KEYS: the names of the record and the clock (as `open` has them). ARGV: time, how many names, the version to write, and
-- an id or ''.

local record, now, places = open(1, tonumber(ARGV[2]), ARGV[1])
if not record or not record.challenge then return 0 end
if ARGV[4] ~= '' and ARGV[4] ~= record.challenge.id then return 0 end
record.challenge, record.replaced = nil, nil
keep_record(1, places, record, now, tonumber(ARGV[3]))
return 1
