-- A code's record and the clock, for the scripts that decide about codes. They say what otp/policy.py says.
-- A value is a proof of 32 octets, which stands for the live code, and the record as store/codec.py writes it. A record
-- with a replaced challenge has the proof of that one behind it.

local WINDOW = 3600 -- model.FAILURE_WINDOW
local KEPT = 60 -- seconds that a record is kept after its end, so that no two clocks disagree about it
local PROOF = 32
local HEADS = { '<Bdddc16hH', '<Bdddc16hHc4BB' } -- by version
local REPLACED = '<c16dB'
local NO_CHALLENGE = -1
local NO_PROOF = string.rep('\0', PROOF)
local NO_CALL = string.rep('\0', 4)

-- The time that a test gives, or the server's, which `kept` makes one that never falls back (clock_look.lua).
local function time(given, kept)
  if given ~= '' then return tonumber(given) end
  local clock = redis.call('TIME')
  local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
  if not kept then return now end
  local ahead, latest = struct.unpack('<dd', kept)
  return math.max(now + ahead, latest)
end

local function times(value, count, at)
  local found = {}
  for place = 1, count do
    found[place], at = struct.unpack('<d', value, at)
  end
  return found, at
end

local function text(value, length, at)
  return string.sub(value, at, at + length - 1), at + length
end

local function decode(value)
  local version = string.byte(value, PROOF + 1)
  if not HEADS[version] then
    error('a code record in the store has version ' .. version .. '; this program reads version 1 and 2')
  end
  local record = { call = NO_CALL }
  local _, _, expires, next_send, id, attempts, count, call, mails, length = struct.unpack(HEADS[version], value, PROOF + 1)
  local at = PROOF + 1 + struct.size(HEADS[version])
  local key_id
  record.next_send = next_send
  if version == 1 then
    record.failures, at = times(value, count, at)
    key_id = string.sub(value, at)
  else
    record.call = call
    key_id, at = text(value, length, at)
    record.failures, at = times(value, count, at)
    if mails > 0 then
      local replaced = { attempts = 0 }
      record.replaced = { challenge = replaced }
      record.replaced.mails, at = times(value, mails, at)
      replaced.id, replaced.expires, length, at = struct.unpack(REPLACED, value, at)
      replaced.key_id, at = text(value, length, at)
      replaced.proof = string.sub(value, at)
    end
  end
  if attempts ~= NO_CHALLENGE then
    record.challenge =
      { id = id, key_id = key_id, expires = expires, attempts = attempts, proof = string.sub(value, 1, PROOF) }
  end
  return record
end

local function ends_of(record)
  local ends = record.next_send
  if record.challenge then ends = math.max(ends, record.challenge.expires) end
  local failures = #record.failures
  if failures > 0 then ends = math.max(ends, record.failures[failures] + WINDOW) end
  return ends
end

-- In version 1 it lacks the call and what was replaced: for replicas that know no other.
local function encode(record, version)
  local challenge = record.challenge or
    { id = string.rep('\0', 16), key_id = '', expires = 0, attempts = NO_CHALLENGE, proof = NO_PROOF }
  local replaced = version > 1 and record.replaced or { mails = {} }
  local failures, mails, key_id = record.failures, replaced.mails, challenge.key_id
  local head = struct.pack(
    HEADS[version], version, ends_of(record), challenge.expires, record.next_send, challenge.id, challenge.attempts,
    #failures, record.call, #mails, #key_id
  )
  local parts = { challenge.proof, head, version > 1 and key_id or '' }
  for _, failure in ipairs(failures) do parts[#parts + 1] = struct.pack('<d', failure) end
  if version == 1 then
    parts[#parts + 1] = key_id
  elseif #mails > 0 then
    for _, mail in ipairs(mails) do parts[#parts + 1] = struct.pack('<d', mail) end
    local older = replaced.challenge
    parts[#parts + 1] = struct.pack(REPLACED, older.id, older.expires, #older.key_id) .. older.key_id .. older.proof
  end
  return table.concat(parts)
end

-- Reads the record of an address, and the clock. KEYS from `first`: `count` names of the record, of which the first is
-- written and the others may hold it still, and the clock. `given` is a time, as above.
-- Returns the record (nil for none), the time, and the names where something is.
local function open(first, count, given)
  local values = redis.call('MGET', unpack(KEYS, first, first + count))
  local record, found = nil, {}
  for place = 1, count do
    if values[place] then
      record = record or decode(values[place])
      found[#found + 1] = KEYS[first + place - 1]
    end
  end
  return record, time(given, values[count + 1]), found
end

-- The first write of a script that keeps no mail, so that a server without memory has done all of it or nothing.
local function write(key, record, now, version)
  local milliseconds = math.ceil((ends_of(record) - now + KEPT) * 1000)
  redis.call('SET', key, encode(record, version), 'PX', string.format('%d', math.max(milliseconds, 1)))
end

-- Writes a record under its first name, and under no other.
local function keep_record(first, found, record, now, version)
  write(KEYS[first], record, now, version)
  for _, name in ipairs(found) do
    if name ~= KEYS[first] then redis.call('DEL', name) end
  end
end

local function from_failure(failures, first)
  local left = {}
  for place = math.max(first, 1), #failures do
    left[#left + 1] = failures[place]
  end
  return left
end

-- The record without what time has taken away: an expired challenge, failures over an hour old.
local function recent(record, now)
  local first = 1
  while record.failures[first] and record.failures[first] <= now - WINDOW do
    first = first + 1
  end
  local challenge, replaced = record.challenge, record.replaced
  if challenge and challenge.expires <= now then
    challenge, replaced = nil, nil
  end
  return {
    challenge = challenge, failures = from_failure(record.failures, first), next_send = record.next_send,
    call = record.call, replaced = replaced,
  }
end

local function blocked_until(record, now, failures_per_hour)
  local count = #record.failures
  if count < failures_per_hour then return now end
  return record.failures[count - failures_per_hour + 1] + WINDOW
end
