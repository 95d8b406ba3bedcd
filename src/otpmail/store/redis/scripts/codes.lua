-- A code's record and the clock, for the scripts that decide about codes. They say what otp/policy.py says.
-- A value is a proof of 32 octets, which stands for the live code, and the record as store/codec.py writes it.

local WINDOW = 3600 -- model.FAILURE_WINDOW
local KEPT = 60 -- seconds that a record is kept after its end, so that no two clocks disagree about it
local VERSION = 1
local PROOF = 32
local HEAD = '<Bdddc16hH'
local NO_CHALLENGE = -1
local NO_PROOF = string.rep('\0', PROOF)

-- The server's time, or the one that a test gives.
local function time(given)
  if given ~= '' then return tonumber(given) end
  local now = redis.call('TIME')
  return tonumber(now[1]) + tonumber(now[2]) / 1e6
end

local function decode(value)
  local version, ends, expires, next_send, id, attempts, count, at = struct.unpack(HEAD, value, PROOF + 1)
  if version ~= VERSION then
    error('a code record in the store has version ' .. version .. '; this program reads version ' .. VERSION)
  end
  local record = { failures = {}, next_send = next_send }
  for place = 1, count do
    record.failures[place], at = struct.unpack('<d', value, at)
  end
  if attempts ~= NO_CHALLENGE then
    record.challenge = {
      id = id, key_id = string.sub(value, at), expires = expires, attempts = attempts, proof = string.sub(value, 1, PROOF)
    }
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

local function encode(record)
  local challenge = record.challenge or
    { id = string.rep('\0', 16), key_id = '', expires = 0, attempts = NO_CHALLENGE, proof = NO_PROOF }
  local parts = {
    challenge.proof,
    struct.pack(
      HEAD, VERSION, ends_of(record), challenge.expires, record.next_send, challenge.id, challenge.attempts,
      #record.failures
    ),
  }
  for _, failure in ipairs(record.failures) do
    parts[#parts + 1] = struct.pack('<d', failure)
  end
  parts[#parts + 1] = challenge.key_id
  return table.concat(parts)
end

local function read(key)
  local value = redis.call('GET', key)
  return value and decode(value) or nil
end

-- The only write of a script that keeps no mail, so that a server without memory has done all of it or nothing.
local function write(key, record, now)
  local milliseconds = math.ceil((ends_of(record) - now + KEPT) * 1000)
  redis.call('SET', key, encode(record), 'PX', string.format('%d', math.max(milliseconds, 1)))
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
  local challenge = record.challenge
  if challenge and challenge.expires <= now then challenge = nil end
  return { challenge = challenge, failures = from_failure(record.failures, first), next_send = record.next_send }
end

local function blocked_until(record, now, failures_per_hour)
  local count = #record.failures
  if count < failures_per_hour then return now end
  return record.failures[count - failures_per_hour + 1] + WINDOW
end
