-- Scripts of mails begin with this. Its KEYS and ARGV come first; the other headers leave them out, but count them.
-- KEYS: the epoch, the owners.
-- ARGV: the epoch's id, the name of this owner.
-- A step that this owner may not do returns {why} (`refusal`).

local EPOCH, OWNERS = KEYS[1], KEYS[2]
local epoch, me = ARGV[1], ARGV[2]

-- Scores of an owner beside the end of its lease: one that lost it, and one that has released its mails at a stop.
local FENCED, RELEASED = 0, 1

local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function lease_of(owner)
  return tonumber(redis.call('ZSCORE', OWNERS, owner) or -1)
end

-- Why this owner may not act: the server's data is another than it knows, or its lease was taken from it.
local function refusal()
  if redis.call('HGET', EPOCH, 'id') ~= epoch then
    return 'EPOCH'
  end
  if lease_of(me) <= RELEASED then
    return 'LOST'
  end
  return false
end

-- The first of the fingerprints that `joined` has joined (store/redis/keys.py): the one to keep.
local function first_of(fingerprints)
  return string.sub(fingerprints, 2, 1 + (string.byte(fingerprints) or 0))
end

local function is_among(fingerprint, fingerprints)
  local at = 1
  while at <= #fingerprints do
    local length = string.byte(fingerprints, at)
    if string.sub(fingerprints, at + 1, at + length) == fingerprint then return true end
    at = at + 1 + length
  end
  return false
end

-- Returns the earlier mail of a request id; false where nothing counts, or the id is this very mail's.
-- `gone` marks a request id that was taken over from an owner that had ended. The relay may have that mail, so each
-- further call takes it over too, and so keeps its Message-ID.
local function earlier(request, fingerprints, id, now)
  local kept = redis.call('HMGET', request, 'state', 'mail', 'print', 'own', 'ends', 'gone')
  local state, mail, owner = kept[1], kept[2], kept[4]
  if state == 'free' and kept[6] and is_among(kept[3], fingerprints) then
    return 'T' .. mail
  end
  if not state or state == 'free' or (state == 'settled' and tonumber(kept[5]) <= now) then
    return false
  end
  if not is_among(kept[3], fingerprints) then
    return 'C' .. mail
  end
  if state == 'settled' then
    return 'S' .. mail
  end
  if mail == id and owner == me then
    return false
  end
  if state == 'kept' or owner == me or lease_of(owner) > milliseconds() then
    return 'R' .. mail
  end
  return 'T' .. mail
end
