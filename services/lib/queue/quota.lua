-- What is counted of a tenant's quota, in one place for all gateways (quota-counters.ts tells of keys and arguments). The clock is Redis's own: those of
-- the gateways may differ and jump.

-- What each call pays for is short: a script that runs a hundred times a second finds nothing of itself in the processor's caches, and every command it
-- calls, whatever that does, then costs some ten microseconds.
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

-- GCRA: in how many microseconds the bucket is full again. It is kept as two doubles, a second and the microseconds from there, so that the smallest parts
-- of one are held. More than an empty bucket needs is of another limit, or of a clock that was set back.
local function until_full(key, interval, burst)
  local kept = redis.call('GET', key)
  if not kept then return 0 end
  local second, rest = struct.unpack('<dd', kept)
  return math.max(0, math.min((second - seconds) * 1000000 + (rest - micros), burst * interval))
end

-- us: more than the rounding of doubles, less than two times that are not the same can differ by.
local EPSILON = 0.000001

-- Leases end by themselves; one that would end much later than one made now is of a clock that was set back. Reading alone costs half of what
-- removing costs, and most often there is nothing to remove.
local function live(key, ttl)
  local latest = now_ms + 2 * ttl
  local count = redis.call('ZCOUNT', key, now_ms + 1, latest)
  if redis.call('ZCARD', key) > count then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now_ms)
    redis.call('ZREMRANGEBYSCORE', key, '(' .. latest, '+inf')
  end
  return count
end

local operation = ARGV[1]

-- KEYS: rate and leases of the tenant, its months; where the function has limits of its own, its rate and leases.
-- ARGV: lease's time ms; interval us, burst, calls at once of the tenant (empty: no limit); its nano-GB-seconds; the same three of the function; the
-- id; the month that the gateway believes in, its first second and that of the next.
-- Gives: what is used up (0 nothing, 1 and 2 requests, 3 and 4 calls at once, 5 the month, 6 the month is not known), ms until it is worth while to
-- ask again, the clock's microseconds, what was used in the month, the month's name unless it is the one believed in, then for the tenant, and for the
-- function if it has limits: calls left, ms until the bucket is full, calls at once left.
if operation == 'admit' then
  local ttl = tonumber(ARGV[2])
  local owners = KEYS[4] and 2 or 1
  local used_up, wait = 0, 0
  local answer = {0, 0, seconds * 1000000 + micros, '', ''}
  local full, free = {}, {}
  for owner = 1, owners do
    local key, at = 3 * owner - 2, 4 * owner - 1
    local interval, burst, most = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    if interval then
      full[owner] = until_full(KEYS[key], interval, burst)
      local over = full[owner] - (burst - 1) * interval
      if over > EPSILON and used_up == 0 then used_up, wait = owner, over / 1000 end
    end
    if most then
      free[owner] = most - live(KEYS[key + 1], ttl)
      if free[owner] <= 0 and used_up == 0 then used_up, wait = 2 + owner, 0 end
    end
  end
  local gb_limit = tonumber(ARGV[6])
  if gb_limit then
    local name = ARGV[11]
    if seconds < tonumber(ARGV[12]) or seconds >= tonumber(ARGV[13]) then
      name = month()
      answer[5] = name
    end
    local used = redis.call('HGET', KEYS[3], name)
    if not used then used_up = 6
    else
      answer[4] = used
      if tonumber(used) >= gb_limit then used_up = 5 end
    end
  end
  answer[1], answer[2] = used_up, math.ceil(wait)
  for owner = 1, owners do
    local key, at, out = 3 * owner - 2, 4 * owner - 1, 3 * owner + 3
    local interval, burst, most = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    answer[out], answer[out + 1], answer[out + 2] = -1, 0, -1
    if interval then
      local ahead = full[owner]
      if used_up == 0 then
        ahead = ahead + interval
        redis.call('SET', KEYS[key], struct.pack('<dd', seconds, micros + ahead), 'PX', math.ceil(ahead / 1000) + 1)
      end
      answer[out] = math.max(0, math.floor(burst - (ahead - EPSILON) / interval))
      answer[out + 1] = math.ceil(ahead / 1000)
    end
    if most then
      local left = free[owner]
      if used_up == 0 then
        left = left - 1
        redis.call('ZADD', KEYS[key + 1], now_ms + ttl, ARGV[10])
        redis.call('PEXPIRE', KEYS[key + 1], ttl)
      end
      answer[out + 2] = math.max(0, left)
    end
  end
  return answer
end

-- ARGV: lease's time ms, ids.
if operation == 'renew' then
  local ttl = tonumber(ARGV[2])
  for i = 3, #ARGV do redis.call('ZADD', KEYS[1], now_ms + ttl, ARGV[i]) end
  live(KEYS[1], ttl)
  redis.call('PEXPIRE', KEYS[1], ttl)
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

-- Gives what is used now: requests of tenant's burst, calls at once, nano-GB-seconds of the month (empty: not known), the month. ARGV: interval, burst,
-- lease's time ms.
if operation == 'use' then
  local interval, burst = tonumber(ARGV[2]), tonumber(ARGV[3])
  local spent = 0
  if interval then spent = math.ceil((until_full(KEYS[1], interval, burst) - EPSILON) / interval) end
  local this = month()
  return {spent, live(KEYS[2], tonumber(ARGV[4])), redis.call('HGET', KEYS[3], this) or '', this}
end

return redis.error_reply('quota.lua knows no ' .. tostring(operation))
