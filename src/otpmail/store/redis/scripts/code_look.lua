-- Reads the failures and mails of strangers at an address, from which otp.policy.Policy.budgets makes budgets.
-- KEYS: the names of the record and the clock (as `open` has them).
-- ARGV: the time, how many names the record has, 0.
-- Returns {time, failures, mails}.

local record, now = open(1, tonumber(ARGV[2]), ARGV[1], 0)
local lane = record and lane_of(record, STRANGERS) or { failures = {}, sends = {} }
return cmsgpack.pack({ now, lane.failures, lane.sends })
