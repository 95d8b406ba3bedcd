-- The counts of limits over many addresses, by stretches of time (limits/rules.py). It is behind codes.lua. A value is
-- MessagePack of each stretch's number since the epoch, then its count, the oldest first.

local STRETCH = 300 -- seconds of a count, where a limit is one of an hour
local STRETCHES = 13 -- which an hour or a day touches

-- Returns the limits over many addresses that ARGV has from `first` on, and the place behind them. First comes how many
-- there are. Each has its name, the most, '1' where it is in shadow, '1' where it warns, and the seconds of a stretch.
-- The last of KEYS are the names of their counts.
local function quotas_of(first)
  local quotas, count = {}, tonumber(ARGV[first])
  for place = 1, count do
    local at = first + 5 * place - 4
    quotas[place] = {
      limit = ARGV[at], most = tonumber(ARGV[at + 1]), is_shadow = ARGV[at + 2] == '1', warns = ARGV[at + 3] == '1',
      stretch = tonumber(ARGV[at + 4]),
    }
  end
  return quotas, first + 1 + 5 * count
end

-- Returns the counts of these `quotas`, which are the last of KEYS: `names` names for each limit.
local function read_counts(quotas, names)
  local found = {}
  if #quotas == 0 then return found end
  local first = #KEYS - #quotas * names
  local values = redis.call('MGET', unpack(KEYS, first + 1, #KEYS))
  for place, quota in ipairs(quotas) do
    local from = (place - 1) * names
    local value
    for at = from + 1, from + names do value = value or values[at] end
    local pairs_of = value and cmsgpack.unpack(value) or {}
    found[place] = { pairs = pairs_of, first = first + from + 1, names = names, stretch = quota.stretch }
  end
  return found
end

-- Returns `count` limits of mails with codes, of which no more is known.
local function codes_quotas(count)
  local quotas = {}
  for place = 1, count do quotas[place] = { stretch = STRETCH } end
  return quotas
end

local function recent_counts(counts, now)
  local left, first = {}, math.floor(now / counts.stretch) - STRETCHES
  for at = 1, #counts.pairs, 2 do
    if counts.pairs[at] > first then
      left[#left + 1], left[#left + 2] = counts.pairs[at], counts.pairs[at + 1]
    end
  end
  counts.pairs = left
end

local function total_of(counts)
  local total = 0
  for at = 2, #counts.pairs, 2 do total = total + counts.pairs[at] end
  return total
end

-- When one more is within the limit, 0 where it is so now.
local function counts_free_at(counts, most)
  local spare = most - 1 - total_of(counts)
  if spare >= 0 then return 0 end
  for at = 1, #counts.pairs, 2 do
    spare = spare + counts.pairs[at + 1]
    if spare >= 0 then return (counts.pairs[at] + STRETCHES) * counts.stretch end
  end
  return 0
end

local function with_one(counts, now)
  local known, stretch = counts.pairs, math.floor(now / counts.stretch)
  if #known > 0 and known[#known - 1] >= stretch then
    known[#known] = known[#known] + 1
  else
    known[#known + 1], known[#known + 2] = stretch, 1
  end
end

local function without_one(counts, at_time)
  local known, stretch = counts.pairs, math.floor(at_time / counts.stretch)
  local place = #known - 1
  if place >= 1 and known[place] - stretch >= STRETCHES then return end -- it has left the counts already
  for at = 1, #known, 2 do
    if known[at] == stretch then place = at end
  end
  if place < 1 then return end
  known[place + 1] = known[place + 1] - 1
  if known[place + 1] == 0 then
    table.remove(known, place)
    table.remove(known, place)
  end
end

local function level_reached(before, most)
  for _, percent in ipairs({ 80, 50 }) do
    if before + 1 == math.ceil(most * percent / 100) then return percent end
  end
  return 0
end

-- The refusal that lasts longest, of two that may be false: {limit, seconds, whether it is a device's limit}.
local function longer(one, other)
  if one and other then return other[2] > one[2] and other or one end
  return one or other
end

-- Counts one mail more for each limit, without a write yet (otp.policy.Policy.admit). Returns why it is refused, by the
-- limit that lasts longest, or false, and the counts to write. Notes what is worth a line. `is_free`: they refuse
-- nothing now.
local function admit(asked, names, is_free)
  local now, reached, refused = asked.now, asked.reached, false
  local counts = read_counts(asked.quotas, names)
  for place, quota in ipairs(asked.quotas) do
    local one = counts[place]
    recent_counts(one, now)
    local before = total_of(one)
    local percent = 0
    if before >= quota.most then
      if not (quota.is_shadow or is_free) then
        refused = longer(refused, { quota.limit, counts_free_at(one, quota.most) - now })
      end
      percent = 100
    elseif quota.warns then
      percent = level_reached(before, quota.most)
    end
    with_one(one, now)
    if percent > 0 then reached[#reached + 1] = { quota.limit, percent } end
  end
  return refused, counts
end

-- Writes counts under their first names, and under no other.
local function write_counts(counts, now)
  for _, one in ipairs(counts) do
    local left = #one.pairs
    if left == 0 then
      redis.call('DEL', KEYS[one.first])
    else
      local ends = (one.pairs[left - 1] + STRETCHES) * one.stretch
      local milliseconds = math.max(math.ceil((ends - now + KEPT) * 1000), 1)
      redis.call('SET', KEYS[one.first], cmsgpack.pack(one.pairs), 'PX', string.format('%d', milliseconds))
    end
    for at = one.first + 1, one.first + one.names - 1 do redis.call('DEL', KEYS[at]) end
  end
end

-- The record of the mailbox of an address with a tag: its names are KEYS before those of the counts of `quotas` limits.
local function mailbox_of(quotas, names)
  local first = #KEYS - (quotas + 1) * names + 1
  local values = redis.call('MGET', unpack(KEYS, first, first + names - 1))
  local box = { first = first, found = {} }
  for place = 1, names do
    if values[place] then
      box.record = box.record or decode(values[place])
      box.found[#box.found + 1] = KEYS[first + place - 1]
    end
  end
  return box
end

local function keep_mailbox(box, now)
  if box then keep_record(box.first, box.found, box.record, now) end
end
