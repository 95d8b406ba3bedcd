-- Counts a mail for the rates of its caller, or takes that back (otp.policy.Policy.admit). It is behind counts.lua.
-- KEYS: the clock, the mark of the step where one is taken back, and the names of counts.
-- ARGV: the time, how many names a count has, when the mail was counted ('' to count it now), and the limits
-- (`quotas_of`).
-- Returns {limit, seconds} where it is refused, else {'', time, the limits that the log has a line about}.

local names, counted = tonumber(ARGV[2]), ARGV[3]
local asked = { quotas = quotas_of(4), reached = {}, now = time(ARGV[1], redis.call('GET', KEYS[1])) }
if counted ~= '' then
  -- A step whose answer was lost is asked again for a minute.
  if not redis.call('SET', KEYS[2], '', 'NX', 'PX', 120000) then return cmsgpack.pack({ '', asked.now, {} }) end
  local counts = read_counts(asked.quotas, names)
  for _, one in ipairs(counts) do without_one(one, tonumber(counted)) end
  write_counts(counts, asked.now)
  return cmsgpack.pack({ '', asked.now, {} })
end
local refused, counts = admit(asked, names)
if refused then return cmsgpack.pack(refused) end
write_counts(counts, asked.now)
return cmsgpack.pack({ '', asked.now, asked.reached })
