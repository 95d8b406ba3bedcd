-- The record of an address's codes and the clock, for the scripts that decide about codes. They follow the rules of
-- otp/policy.py, with the words of code_record.py. A value is an octet with the version, and MessagePack of the record.
-- Beside each challenge stands the proof of its code, which is compared in place of the code.

local HOUR, DAY = 3600, 86400
local KEPT = 60 -- seconds that a record is kept after its end, so that no two clocks disagree about it
local VERSION = 3 -- earlier ones had a record for each purpose, under names of their own
local LONG = 12 -- letters of a code that nobody guesses
local FIXED = ':fixed' -- in place of a key, for the code of a test address
local NO_CALL = string.rep('\0', 4)
local STRANGERS = string.rep('\0', 8)
local RELEASED = 'released' -- in place of a device: what was spent when the budgets were released (code_record.py)
local MOST_LANES = 16 -- of devices: while all of them count, a further device counts with strangers

-- The time that a test gives, or the server's, which `kept` makes one that never falls back (clock_look.lua).
local function time(given, kept)
  if given ~= '' then return tonumber(given) end
  local clock = redis.call('TIME')
  local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
  if not kept then return now end
  local ahead, latest = struct.unpack('<dd', kept)
  return math.max(now + ahead, latest)
end

-- Returns the settings (otp.policy.Policy.numbers) that ARGV has from `first` on, and the place behind them.
local function rules_of(first)
  local function number(place) return tonumber(ARGV[first + place]) end
  return {
    attempts = number(0), failures = { hour = number(1), day = number(2), most = number(5) },
    sends = { hour = number(3), day = number(4), most = number(6) }, resend = number(7), wait = number(8),
    locks = number(9) == 1, shadows = { address = number(10) == 1, resend = number(11) == 1 }, digits = number(12),
  }, first + 13
end

-- How many attempts a challenge has.
local function most_of(challenge, rules)
  return challenge.most > 0 and challenge.most or rules.attempts
end

local function challenge_of(packed)
  return packed and {
    id = packed[1], key_id = packed[2], expires = packed[3], attempts = packed[4], length = packed[5],
    proof = packed[6], most = packed[7] or 0
  } or nil
end

local function packed_challenge(one)
  return one and { one.id, one.key_id, one.expires, one.attempts, one.length, one.proof, one.most } or false
end

local function decode(value)
  local version = string.byte(value)
  if version ~= VERSION then
    error('a code record in the store has version ' .. version .. '; this program reads version ' .. VERSION)
  end
  local slots, lanes, answers = unpack(cmsgpack.unpack(string.sub(value, 2)))
  local record = { slots = {}, lanes = {}, answers = answers }
  for place, packed in ipairs(slots) do
    local scope, device, next_send, call, challenge, older, mails = unpack(packed)
    record.slots[place] = {
      scope = scope, device = device, next_send = next_send, call = call, challenge = challenge_of(challenge),
      replaced = older and { challenge = challenge_of(older), mails = mails } or nil,
    }
  end
  for place, packed in ipairs(lanes) do
    record.lanes[place] = { device = packed[1], failures = packed[2], sends = packed[3] }
  end
  return record
end

local function encode(record)
  local slots, lanes = {}, {}
  for place, slot in ipairs(record.slots) do
    local older, mails = false, {}
    if slot.replaced then older, mails = packed_challenge(slot.replaced.challenge), slot.replaced.mails end
    local challenge = packed_challenge(slot.challenge)
    slots[place] = { slot.scope, slot.device, slot.next_send, slot.call, challenge, older, mails }
  end
  for place, lane in ipairs(record.lanes) do lanes[place] = { lane.device, lane.failures, lane.sends } end
  return string.char(VERSION) .. cmsgpack.pack({ slots, lanes, record.answers })
end

local function ends_of(record)
  local ends = 0
  for _, slot in ipairs(record.slots) do
    ends = math.max(ends, slot.next_send, slot.challenge and slot.challenge.expires or 0)
  end
  for _, answer in ipairs(record.answers) do ends = math.max(ends, answer[2]) end
  for _, lane in ipairs(record.lanes) do
    ends = math.max(ends, (lane.failures[#lane.failures] or -DAY) + DAY, (lane.sends[#lane.sends] or -DAY) + DAY)
  end
  return ends
end

-- Reads the record of an address, and the clock. KEYS from `first`: `count` names of the record, then the clock, then
-- `earlier` names under which an earlier version may have written the record of a purpose. The first name is written,
-- the others may still hold the record. `given` is a time, as above.
-- Returns the record (nil for none), the time, the names that are there, and name and value of the earlier record.
local function open(first, count, given, earlier)
  local values = redis.call('MGET', unpack(KEYS, first, first + count + earlier))
  local record, found = nil, {}
  for place = 1, count do
    if values[place] then
      record = record or decode(values[place])
      found[#found + 1] = KEYS[first + place - 1]
    end
  end
  local old
  for place = count + 2, count + 1 + earlier do
    if values[place] and not old then old = { name = KEYS[first + place - 1], value = values[place] } end
  end
  return record, time(given, values[count + 1]), found, old
end

-- The first write of a script that keeps no mail, so that a server without memory has done all of it or nothing.
local function write(key, record, now)
  local milliseconds = math.ceil((ends_of(record) - now + KEPT) * 1000)
  redis.call('SET', key, encode(record), 'PX', string.format('%d', math.max(milliseconds, 1)))
end

-- The members of a list for which `is_kept` holds.
local function only(list, is_kept)
  local left = {}
  for _, one in ipairs(list) do
    if is_kept(one) then left[#left + 1] = one end
  end
  return left
end

-- Takes a member out of a list. Returns whether it was there.
local function without(list, one)
  for place, known in ipairs(list) do
    if known == one then
      table.remove(list, place)
      return true
    end
  end
  return false
end

-- Writes a record under its first name, and under no other; nothing where it says nothing (otp.records.kept).
local function keep_record(first, found, record, now)
  local slots = only(record.slots, function(slot) return slot.challenge or slot.next_send ~= 0 end)
  local lanes = only(record.lanes, function(lane) return #lane.failures > 0 or #lane.sends > 0 end)
  local is_kept = #slots > 0 or #lanes > 0 or #record.answers > 0
  if is_kept then write(KEYS[first], { slots = slots, lanes = lanes, answers = record.answers }, now) end
  for _, name in ipairs(found) do
    if name ~= KEYS[first] or not is_kept then redis.call('DEL', name) end
  end
end

-- The record without what time has taken away (otp.records.recent), and an empty one for none.
local function recent(record, now, resend)
  if not record then return { slots = {}, lanes = {}, answers = {} } end
  for _, slot in ipairs(record.slots) do
    if slot.challenge and slot.challenge.expires <= now then slot.challenge, slot.replaced = nil, nil end
  end
  for _, lane in ipairs(record.lanes) do
    lane.failures = only(lane.failures, function(at) return at + DAY > now end)
    lane.sends = only(lane.sends, function(at) return at + DAY - resend > now end)
  end
  return {
    slots = only(record.slots, function(slot) return slot.challenge or slot.next_send > now end),
    lanes = only(record.lanes, function(lane) return #lane.failures > 0 or #lane.sends > 0 end),
    answers = only(record.answers, function(answer) return answer[2] > now end),
  }
end

-- When one more may happen (limits.rules.Windows.free_at).
local function free_at(limit, times)
  local hourly = #times >= limit.hour and times[#times - limit.hour + 1] + HOUR or 0
  local daily = #times >= limit.day and times[#times - limit.day + 1] + DAY or 0
  return math.max(hourly, daily), daily > hourly
end

-- The list with one more at its end, and the latest of it that a limit looks at.
local function noted(times, at, limit)
  local list = {}
  for place = math.max(#times - limit.most + 2, 1), #times do list[#list + 1] = times[place] end
  list[#list + 1] = at
  return list
end

-- The lane in which a device counts: its own, a new one, or strangers' (otp.records.lane_of).
local function lane_of(record, device)
  local strangers, devices = { device = STRANGERS, failures = {}, sends = {} }, 0
  for _, lane in ipairs(record.lanes) do
    if lane.device == device then return lane end
    if lane.device == STRANGERS then
      strangers = lane
    elseif lane.device ~= RELEASED then
      devices = devices + 1
    end
  end
  if devices >= MOST_LANES then return strangers end
  return { device = device, failures = {}, sends = {} }
end

-- Puts a lane in the record as the latest of them, after strangers' lane (otp.records.with_lane).
local function put_lane(record, lane)
  local others = only(record.lanes, function(known) return known.device ~= lane.device end)
  if lane.device == STRANGERS then
    table.insert(others, 1, lane)
  else
    others[#others + 1] = lane
  end
  record.lanes = others
end

local MOST_LIVE = 3 -- challenges, before the oldest short one of strangers ends; and those of one device

-- The slots whose challenges later ones have ended, in the order of that, and as keys (otp.slots.ended_by_later).
local function ended_by_later(slots)
  local live, ended, short, of_device = 0, {}, {}, {}
  for _, slot in ipairs(slots) do
    if slot.challenge and slot.next_send ~= 0 then
      local own = short
      if slot.device ~= STRANGERS then
        own = of_device[slot.device] or {}
        of_device[slot.device] = own
      end
      local rivals = #own >= MOST_LIVE and own or short
      if live >= MOST_LIVE and #rivals > 0 then
        local oldest = table.remove(rivals, 1)
        ended[#ended + 1], ended[oldest] = oldest, true
      else
        live = live + 1
      end
      if slot.device ~= STRANGERS or slot.challenge.length ~= LONG then own[#own + 1] = slot end
    end
  end
  return ended
end

local PROOF = 32 -- octets, before an earlier record
local HEADS = { '<Bdddc16hH', '<Bdddc16hHc4BB' } -- of earlier records, by version (store/earlier_records.py)
local ATTEMPTS = PROOF + 42 -- where the attempts of an earlier record stand, in two octets

-- The record with what one of an earlier version says (otp.records.adopt). Its challenge moves, so that no replica of
-- that version calls its code valid; its failures stay there, and count here too.
local function adopt(record, old, scope, rules)
  record = record or { slots = {}, lanes = {}, answers = {} }
  local version = string.byte(old.value, PROOF + 1)
  if not HEADS[version] then error('a code record in the store has version ' .. version) end
  local _, _, expires, next_send, id, attempts, count, _, _, length =
    struct.unpack(HEADS[version], old.value, PROOF + 1)
  local at = PROOF + 1 + struct.size(HEADS[version])
  local key_id = version == 1 and string.sub(old.value, at + 8 * count) or string.sub(old.value, at, at + length - 1)
  if version ~= 1 then at = at + length end
  local has_one = false
  for _, slot in ipairs(record.slots) do
    if slot.scope == scope and slot.device == STRANGERS then has_one = true end
  end
  if attempts >= 0 and not has_one then
    record.slots[#record.slots + 1] = {
      scope = scope, device = STRANGERS, next_send = next_send, call = NO_CALL,
      challenge = {
        id = id, key_id = key_id, expires = expires, attempts = attempts, length = rules.digits, most = 0,
        proof = string.sub(old.value, 1, PROOF)
      },
    }
  end
  local lane = lane_of(record, STRANGERS)
  local known, failures, since = {}, {}, 0
  for _, one in ipairs(record.lanes) do
    if one.device == RELEASED then since = one.failures[#one.failures] or 0 end
  end
  for _, failure in ipairs(lane.failures) do known[failure] = true end
  for place = 1, count do
    local failure = struct.unpack('<d', old.value, at + 8 * (place - 1))
    if failure > since then known[failure] = true end
  end
  for failure in pairs(known) do failures[#failures + 1] = failure end
  table.sort(failures)
  local most = rules.failures.most
  lane.failures = {}
  for place = math.max(#failures - most + 1, 1), #failures do lane.failures[#lane.failures + 1] = failures[place] end
  put_lane(record, lane)
  old.is_adopted = true
  old.has_challenge = attempts >= 0
  return record
end

-- Takes the challenge out of an earlier record, once the record of the address is written.
local function drop_earlier(old)
  if not (old and old.has_challenge) then return end
  local value = string.sub(old.value, 1, ATTEMPTS - 1) .. '\255\255' .. string.sub(old.value, ATTEMPTS + 2)
  redis.call('SET', old.name, value, 'KEEPTTL')
end
