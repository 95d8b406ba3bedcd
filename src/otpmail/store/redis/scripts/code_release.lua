-- Takes back what was spent of the budgets of an address (otp.records.released), or forgets it.
-- KEYS: the names of the record and the clock (as `open` has them). ARGV: time, how many names, how many earlier ones;
-- 'release' or 'forget'.

local record, now, places, old = open(1, tonumber(ARGV[2]), ARGV[1], tonumber(ARGV[3]))
if old and ARGV[4] == 'forget' then redis.call('DEL', old.name) end
if not record then return 0 end
record.lanes = {}
if ARGV[4] == 'forget' then record.slots, record.answers = {}, {} end
keep_record(1, places, record, now)
return 1
