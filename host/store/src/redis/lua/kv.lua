-- The key-value store of tenants' plugins.
--
--   a:<tenant>   hash: key -> value
--   z:<tenant>   the keys that end, by when they do, in ms
--   y            hash: <tenant> \0 k -> how many keys there are, <tenant> \0 b -> bytes of keys and values
--
-- A key that has ended stays until the next write of its tenant removes it; whoever reads looks at its end.
-- Writes reply 1 when done, 0 when there was nothing to do, and below zero when refused.

local TOO_MANY_KEYS, TOO_MANY_BYTES, NOT_A_NUMBER = -1, -2, -3
local SWEEP = 500       -- ended keys looked at in one step of a sweep

local function kv_ms()
  return math.floor(time() / 1000)
end

-- Counts keys and bytes that came or went.
local function kv_count(p, tenant, keys, bytes)
  if keys ~= 0 then redis.call('HINCRBY', p .. 'y', tenant .. Z .. 'k', keys) end
  if bytes ~= 0 then redis.call('HINCRBY', p .. 'y', tenant .. Z .. 'b', bytes) end
end

local function kv_drop(p, tenant, key, value)
  redis.call('HDEL', p .. 'a:' .. tenant, key)
  redis.call('ZREM', p .. 'z:' .. tenant, key)
  kv_count(p, tenant, -1, -(#key + #value))
end

-- Removes what has ended. Each key is removed once, so a write pays for few but those it makes.
local function kv_sweep(p, tenant)
  local ended
  repeat
    ended = redis.call('ZRANGE', p .. 'z:' .. tenant, '-inf', num(kv_ms()), 'BYSCORE', 'LIMIT', 0, SWEEP)
    for _, key in ipairs(ended) do
      local value = redis.call('HGET', p .. 'a:' .. tenant, key)
      if value then
        kv_drop(p, tenant, key, value)
      else
        redis.call('ZREM', p .. 'z:' .. tenant, key)
      end
    end
  until #ended < SWEEP
end

-- Puts a value in place of the one before, which is false if there is none, as far as the quota allows.
local function kv_put(p, tenant, key, before, value, ttl, most_keys, most_bytes)
  local keys = before and 0 or 1
  local bytes = #value + (before and -#before or #key)
  local have = redis.call('HMGET', p .. 'y', tenant .. Z .. 'k', tenant .. Z .. 'b')
  if keys > 0 and tonumber(have[1] or '0') + keys > tonumber(most_keys) then return TOO_MANY_KEYS end
  if bytes > 0 and tonumber(have[2] or '0') + bytes > tonumber(most_bytes) then return TOO_MANY_BYTES end
  redis.call('HSET', p .. 'a:' .. tenant, key, value)
  if tonumber(ttl) > 0 then
    redis.call('ZADD', p .. 'z:' .. tenant, num(kv_ms() + tonumber(ttl)), key)
  else
    redis.call('ZREM', p .. 'z:' .. tenant, key)
  end
  kv_count(p, tenant, keys, bytes)
  return 1
end

-- ARGV: tenant, key. Reply: the value, or nothing.
local function kv_get(keys, argv)
  local p, tenant, key = keys[1], argv[1], argv[2]
  local value = redis.call('HGET', p .. 'a:' .. tenant, key)
  if not value then return {} end
  local ends = redis.call('ZSCORE', p .. 'z:' .. tenant, key)
  if ends and tonumber(ends) <= kv_ms() then return {} end
  return { value }
end

-- ARGV: tenant, key, value, ttl in ms or 0, most keys, most bytes.
local function kv_set(keys, argv)
  local p, tenant, key = keys[1], argv[1], argv[2]
  kv_sweep(p, tenant)
  local before = redis.call('HGET', p .. 'a:' .. tenant, key)
  return { kv_put(p, tenant, key, before, argv[3], argv[4], argv[5], argv[6]) }
end

-- ARGV: tenant, key.
local function kv_remove(keys, argv)
  local p, tenant, key = keys[1], argv[1], argv[2]
  kv_sweep(p, tenant)
  local before = redis.call('HGET', p .. 'a:' .. tenant, key)
  if not before then return { 0 } end
  kv_drop(p, tenant, key, before)
  return { 1 }
end

-- ARGV: tenant, key, number to add, ttl, most keys, most bytes. Reply: 1 and the sum, as text, for Lua's
-- numbers have 53 bits.
local function kv_increment(keys, argv)
  local p, tenant, key, by = keys[1], argv[1], argv[2], argv[3]
  kv_sweep(p, tenant)
  local values = p .. 'a:' .. tenant
  local before = redis.call('HGET', values, key)
  if not before then
    local done = kv_put(p, tenant, key, before, by, argv[4], argv[5], argv[6])
    return { done, by }
  end
  local sum = redis.pcall('HINCRBY', values, key, by)
  if type(sum) == 'table' and sum.err then return { NOT_A_NUMBER } end
  local after = redis.call('HGET', values, key)
  kv_count(p, tenant, 0, #after - #before)
  return { 1, after }
end

-- ARGV: tenant, key, 1 and the expected value or 0 and nothing, 1 and the new value or 0 and nothing, ttl,
-- most keys, most bytes.
local function kv_swap(keys, argv)
  local p, tenant, key = keys[1], argv[1], argv[2]
  kv_sweep(p, tenant)
  local before = redis.call('HGET', p .. 'a:' .. tenant, key)
  local expected = argv[3] == '1' and argv[4]
  if before ~= expected then return { 0 } end
  if argv[5] == '1' then
    return { kv_put(p, tenant, key, before, argv[6], argv[7], argv[8], argv[9]) }
  end
  if before then kv_drop(p, tenant, key, before) end
  return { 1 }
end

-- ARGV: tenant. Reply: the keys and bytes that there were. The server frees the values in the background, so
-- this is a short step however many there are.
local function kv_forget(keys, argv)
  local p, tenant = keys[1], argv[1]
  local had = redis.call('HMGET', p .. 'y', tenant .. Z .. 'k', tenant .. Z .. 'b')
  redis.call('UNLINK', p .. 'a:' .. tenant, p .. 'z:' .. tenant)
  redis.call('HDEL', p .. 'y', tenant .. Z .. 'k', tenant .. Z .. 'b')
  return { tonumber(had[1] or '0'), tonumber(had[2] or '0') }
end

redis.register_function('@_kv_get', kv_get)
redis.register_function('@_kv_set', kv_set)
redis.register_function('@_kv_remove', kv_remove)
redis.register_function('@_kv_increment', kv_increment)
redis.register_function('@_kv_swap', kv_swap)
redis.register_function('@_kv_forget', kv_forget)
