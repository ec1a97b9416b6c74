-- What is counted of a tenant's quota, in one place for all gateways (quota-counters.ts tells of keys and arguments). The clock is Redis's own: those of
-- the gateways may differ and jump.

local time = redis.call('TIME')
local seconds, micros = tonumber(time[1]), tonumber(time[2])
local now_ms = seconds * 1000 + math.floor(micros / 1000)

-- The month of now as 2026-11, UTC. Days are counted in years that begin in March, so that the leap day is the last.
local function month()
  local days = math.floor(seconds / 86400) + 719468
  local era = math.floor(days / 146097)
  local day = days - era * 146097
  local year = math.floor((day - math.floor(day / 1460) + math.floor(day / 36524) - math.floor(day / 146096)) / 365)
  local yearday = day - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local number = math.floor((5 * yearday + 2) / 153)
  year = year + era * 400
  if number >= 10 then year = year + 1 end
  return string.format('%04d-%02d', year, number < 10 and number + 3 or number - 9)
end

-- GCRA: in how many microseconds the bucket is full again. It is kept as a second and the microseconds from there, so that a double holds the
-- smallest parts of one. More than an empty bucket needs is of another limit, or of a clock that was set back.
local function until_full(key, interval, burst)
  local second, rest = string.match(redis.call('GET', key) or '', '^(%d+) (.+)$')
  if not second then return 0 end
  local ahead = (tonumber(second) - seconds) * 1000000 + (tonumber(rest) - micros)
  return math.max(0, math.min(ahead, burst * interval))
end

-- us: more than the rounding of doubles, less than two times that are not the same can differ by.
local EPSILON = 0.000001

local function live(key)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now_ms)
  return redis.call('ZCARD', key)
end

-- Leases end by themselves; one that would end much later than one made now is of a clock that was set back.
local function lease(key, ttl, first)
  local expires = now_ms + ttl
  for i = first, #ARGV do redis.call('ZADD', key, expires, ARGV[i]) end
  redis.call('ZREMRANGEBYSCORE', key, expires + ttl, '+inf')
  redis.call('PEXPIRE', key, ttl)
end

local operation = ARGV[1]

-- ARGV: lease's time ms; of the tenant and of the function: interval us, burst, calls at once (empty: no limit); the tenant's nano-GB-seconds; the id.
-- Gives: what is used up (0 nothing, 1 and 2 requests, 3 and 4 calls at once, 5 the month, 6 the month is not known), ms until it is worth while to
-- ask again, then for tenant and function: calls left, ms until the bucket is full, calls at once left; the month, what was used in it, the clock's seconds and microseconds.
if operation == 'admit' then
  local ttl = tonumber(ARGV[2])
  local used_up, wait = 0, 0
  local answer = {0, 0, -1, 0, -1, -1, 0, -1, '', '', seconds, micros}
  local full, free = {}, {}
  for owner = 1, 2 do
    local at = 3 * owner
    local interval, burst, most = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    if interval then
      full[owner] = until_full(KEYS[2 * owner - 1], interval, burst)
      local over = full[owner] - (burst - 1) * interval
      if over > EPSILON and used_up == 0 then used_up, wait = owner, over / 1000 end
    end
    if most then
      free[owner] = most - live(KEYS[2 * owner])
      if free[owner] <= 0 and used_up == 0 then used_up, wait = 2 + owner, 0 end
    end
  end
  local gb_limit = tonumber(ARGV[9])
  if gb_limit then
    answer[9] = month()
    local used = redis.call('HGET', KEYS[5], answer[9])
    if not used then used_up = 6
    else
      answer[10] = used
      if tonumber(used) >= gb_limit then used_up = 5 end
    end
  end
  answer[1], answer[2] = used_up, math.ceil(wait)
  for owner = 1, 2 do
    local at = 3 * owner
    local interval, burst, most = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    if interval then
      local ahead = full[owner]
      if used_up == 0 then
        ahead = ahead + interval
        redis.call('SET', KEYS[2 * owner - 1], string.format('%.0f %.17g', seconds, micros + ahead), 'PX', math.ceil(ahead / 1000) + 1)
      end
      answer[at] = math.max(0, math.floor(burst - (ahead - EPSILON) / interval))
      answer[at + 1] = math.ceil(ahead / 1000)
    end
    if most then
      if used_up == 0 then lease(KEYS[2 * owner], ttl, 10) end
      answer[at + 2] = math.max(0, free[owner] - (used_up == 0 and 1 or 0))
    end
  end
  return answer
end

-- ARGV: lease's time ms, ids.
if operation == 'renew' then
  lease(KEYS[1], tonumber(ARGV[2]), 3)
  return 1
end

-- ARGV: month, nano-GB-seconds. A month that is not known stays so: whoever asks first makes it anew from the records, and these are in them.
if operation == 'spend' then
  if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 0 then return 0 end
  redis.call('HINCRBY', KEYS[1], ARGV[2], ARGV[3])
  return 1
end

-- ARGV: month, nano-GB-seconds that were used at least.
if operation == 'raise' then
  local used = redis.call('HGET', KEYS[1], ARGV[2])
  if used and tonumber(used) >= tonumber(ARGV[3]) then return 0 end
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
  -- A little over two months: the last one may still be asked for.
  redis.call('EXPIRE', KEYS[1], 5616000)
  return 1
end

-- Gives what is used now: requests of tenant's burst, calls at once, nano-GB-seconds of the month (empty: not known), the month. ARGV: interval, burst.
if operation == 'use' then
  local interval, burst = tonumber(ARGV[2]), tonumber(ARGV[3])
  local spent = 0
  if interval then spent = math.ceil((until_full(KEYS[1], interval, burst) - EPSILON) / interval) end
  local this = month()
  return {spent, live(KEYS[2]), redis.call('HGET', KEYS[3], this) or '', this}
end

return redis.error_reply('quota.lua knows no ' .. tostring(operation))
