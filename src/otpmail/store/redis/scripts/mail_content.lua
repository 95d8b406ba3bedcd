-- Keeps the contents of settled mails that may be retried, within a bound. It has no KEYS: the scripts behind it pass
-- `contents`, a set of `id:octets` by when each mail is forgotten in milliseconds, and `sum`, their octets.

local function forget_content(contents, sum, id, size)
  if redis.call('ZREM', contents, id .. ':' .. size) == 1 then
    redis.call('DECRBY', sum, size)
  end
end

-- The record of this mail is about to change or to go.
local function drop_content(contents, sum, record, id)
  local size = redis.call('HSTRLEN', record, 'content')
  if size > 0 then
    redis.call('HDEL', record, 'content')
    forget_content(contents, sum, id, size)
  end
end

-- Returns false where all contents would take more than `most` octets with this one.
local function keep_content(contents, sum, record, id, octets, ends, most)
  local size = string.len(octets)
  if tonumber(redis.call('GET', sum) or 0) + size > most then
    return false
  end
  redis.call('HSET', record, 'content', octets)
  if redis.call('ZADD', contents, ends, id .. ':' .. size) == 1 then
    redis.call('INCRBY', sum, size)
  end
  return true
end
