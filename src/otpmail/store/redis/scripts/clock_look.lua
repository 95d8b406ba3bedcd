-- Reads the clock of codes, which does not fall back while a replica lives, and the layout that all replicas know.
-- KEYS: a key to write, the clock, the owners, the layout. The write fails on a server that has become a replica or
-- has no memory.
-- ARGV: the least time by the caller's clock, '' for none; the layout that the caller knows.
-- Returns {time, the server's own time, the layout that all living owners know, the layout that the server has}.
-- The clock holds how many seconds it is ahead of the server's, and the latest time that it gave.

local STEP = 0.1 -- seconds that the server's clock must fall back to count as set back
local SLOWER = 0.001 -- of the time that passes, until the clock is the server's again

redis.call('SET', KEYS[1], '', 'PX', 10000)
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
local ahead, latest = 0, 0
local kept = redis.call('GET', KEYS[2])
if kept then ahead, latest = struct.unpack('<dd', kept) end
local least = math.max(latest, tonumber(ARGV[1]) or 0)
if now + ahead < least - STEP then
  ahead = least - now
elseif latest > 0 then
  ahead = math.max(0, ahead - SLOWER * (now + ahead - latest))
end
latest = math.max(latest, now + ahead)
redis.call('SET', KEYS[2], struct.pack('<dd', ahead, latest))

-- An owner's name begins with the layout that it knows; those of layout 1 say nothing.
local milliseconds = clock[1] * 1000 + math.floor(clock[2] / 1000)
local known = tonumber(ARGV[2])
for _, owner in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. string.format('%d', milliseconds), '+inf')) do
  known = math.min(known, tonumber(string.match(owner, '^(%d+)%.')) or 1)
end
local written = tonumber(redis.call('GET', KEYS[4]) or 1)
if known > written then
  written = known
  redis.call('SET', KEYS[4], written)
end
return { string.format('%.6f', latest), string.format('%.6f', now), known, written }
