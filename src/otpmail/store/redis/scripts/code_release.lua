-- Takes back what was spent of the budgets of an address (otp.records.released), or forgets the address.
-- KEYS: the names of the record and the clock (as `open` has them). To forget an address with a mailbox, the names of
-- that mailbox's record are the last.
-- ARGV:
--   1  the time, how many names the record has, how many earlier ones
--   4  'release' or 'forget'
--   5  to release: '1' where records of an earlier version may be there. To forget: '1' where mails count for a mailbox
--   6  to release: how many mails a lane has
-- Returns 1, or 0 where there is nothing to release.

local names, earlier = tonumber(ARGV[2]), tonumber(ARGV[3])
local record, now, places = open(1, names, ARGV[1], earlier)
if ARGV[4] == 'forget' then
  if ARGV[5] == '1' and record then
    local box = mailbox_of(0, names)
    if box.record then
      local strangers = lane_of(box.record, STRANGERS)
      for _, mail in ipairs(lane_of(record, STRANGERS).sends) do without(strangers.sends, mail) end
      put_lane(box.record, strangers)
      keep_mailbox(box, now)
    end
  end
  -- Each name of the record, and of that of a purpose that an earlier version has written.
  for place = 1, names do places[place] = KEYS[place] end
  for place = names + 2, names + 1 + earlier do places[#places + 1] = KEYS[place] end
  redis.call('DEL', unpack(places))
  return 1
end

local has_mark = ARGV[5] == '1'
if not (record or has_mark) then return 0 end
record = record or { slots = {}, lanes = {}, answers = {} }
local spent, sends = { device = RELEASED, failures = {}, sends = {} }, {}
for _, lane in ipairs(record.lanes) do
  for _, mail in ipairs(lane.sends) do sends[#sends + 1] = mail end
  if lane.device == RELEASED then spent.failures = lane.failures end
end
table.sort(sends)
for place = math.max(#sends - tonumber(ARGV[6]) + 1, 1), #sends do spent.sends[#spent.sends + 1] = sends[place] end
if has_mark then spent.failures = { now } end
record.lanes = { spent }
keep_record(1, places, record, now)
return 1
