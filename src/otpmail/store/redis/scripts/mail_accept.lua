-- Keeps mails with their request ids, in one step.
-- KEYS: own set; for each mail its record and that of its request id (the mail's own again where it has none).
-- ARGV: the time in seconds; for each mail its id, score, octets, fingerprints and head.
-- Returns {'OK', changes counted}, and for each mail that is not kept its place among them and the answer about it.

local why = refusal()
if why then
  return {why}
end
local own, now = KEYS[3], tonumber(ARGV[3])
local mails = (#KEYS - 3) / 2
-- The first write of all: with full memory it is refused, and with it the whole step.
local answers = {'OK', redis.call('HINCRBY', EPOCH, me, mails)}
for number = 0, mails - 1 do
  local record, request, first = KEYS[4 + 2 * number], KEYS[5 + 2 * number], 4 + 5 * number
  local answer = came_before(record, request, ARGV[first + 3], ARGV[first], now)
  if answer then
    join(request, answer)
    answers[#answers + 1] = number
    answers[#answers + 1] = answer
  else
    keep(own, record, request, first)
  end
end
return answers
