local TENANTS = 20000   -- of more tenants or lanes at once the counters are left alone

-- ARGV: mend, channel, me. Counts what is in flight by the leases. Reply: the lanes that were counted
-- otherwise. All leases are looked at: there are no more than hosts can hold.
local function check_flights(keys, argv)
  local p = keys[1]
  local members, records = redis.call('ZRANGE', p .. 'l', 0, -1), {}
  for i = 1, #members do records[i] = p .. 'd:' .. members[i] end
  records = mget(records)
  local counts, miscounted = {}, {}
  for i = 1, #members do
    local _, endpoint
    if records[i] then _, _, endpoint = facts(records[i]) end
    if endpoint then
      local lane = string.sub(members[i], 1, string.find(members[i], Z, 1, true)) .. endpoint
      counts[lane] = (counts[lane] or 0) + 1
    end
  end
  local said, wrong = redis.call('HGETALL', p .. 'n'), {}
  local left = {}
  for lane, count in pairs(counts) do left[lane] = count end
  -- Tenants with a cap are counted as well.
  local totals, caps = {}, redis.call('HGETALL', p .. 'h')
  for i = 1, #members do
    local tenant = string.sub(members[i], 1, string.find(members[i], Z, 1, true) - 1)
    totals[tenant] = (totals[tenant] or 0) + 1
  end
  for i = 1, #caps, 2 do
    local tenant = caps[i]
    if has_cap(caps[i + 1]) and tonumber(redis.call('HGET', p .. 'N', tenant) or '') ~= (totals[tenant] or 0) then
      miscounted[#miscounted + 1] = tenant
    end
  end
  for i = 1, #said, 2 do
    if tonumber(said[i + 1]) ~= counts[said[i]] then wrong[#wrong + 1] = said[i] end
    left[said[i]] = nil
  end
  for lane in pairs(left) do wrong[#wrong + 1] = lane end
  if argv[1] == '1' and #miscounted > 0 then
    local quiet, stamp = is_quiet(p), stamps(p, time(), 1)
    for i = 1, #miscounted do
      local tenant = miscounted[i]
      redis.call('HSET', p .. 'N', tenant, totals[tenant] or 0)
      if redis.call('SREM', p .. 'B', tenant) == 1 and redis.call('EXISTS', p .. 'r:' .. tenant) == 1 then
        redis.call('ZADD', p .. 't', 'NX', num(stamp), tenant)
      end
    end
    wake(p, argv[2], argv[3], quiet)
  end
  if argv[1] == '1' and #wrong > 0 then
    local lanes = {}
    for i = 1, #wrong do
      local lane = wrong[i]
      if counts[lane] then
        redis.call('HSET', p .. 'n', lane, num(counts[lane]))
      else
        redis.call('HDEL', p .. 'n', lane)
      end
      -- One that is still at its cap leaves the ring again with the next lease.
      for _, name in ipairs({ lane, lane .. Z }) do
        if redis.call('SMISMEMBER', p .. 'b', name)[1] == 1 then lanes[#lanes + 1] = name end
      end
    end
    if #lanes > 0 then
      local quiet = is_quiet(p)
      many('SREM', p .. 'b', lanes)
      ring(p, lanes, stamps(p, time(), 1))
      wake(p, argv[2], argv[3], quiet)
    end
  end
  for i = 1, #miscounted do wrong[#wrong + 1] = miscounted[i] .. Z end
  return wrong
end

-- ARGV: mend, which sets may be relied on (1: all; x: not those of the open; 0: none), then the counters o, s and x as they were when the
-- records began to be counted, and what was counted. If nothing was done meanwhile the records count,
-- otherwise the sets that the open and the dead are in, at once; the succeeded are in none. Reply: the
-- letters of those that were wrong.
local function check_counters(keys, argv)
  local p, wrong = keys[1], {}
  local said = redis.call('HMGET', p .. 'k', 'o', 's', 'x')
  local still = true
  for i = 1, 3 do still = still and (said[i] or '') == argv[i + 2] end
  local function count(i, kind, number)
    if (tonumber(said[i] or '0') or -1) == number then return end
    wrong[#wrong + 1] = kind
    if argv[1] == '1' then redis.call('HSET', p .. 'k', kind, num(number)) end
  end
  if still then
    count(1, 'o', tonumber(argv[6]))
    count(2, 's', tonumber(argv[7]))
    count(3, 'x', tonumber(argv[8]))
    return wrong
  end
  if argv[2] == '0' then return wrong end
  if redis.call('SCARD', p .. 'T') <= TENANTS then
    local dead, tenants = 0, redis.call('SMEMBERS', p .. 'T')
    for i = 1, #tenants do dead = dead + redis.call('ZCARD', p .. 'x:' .. tenants[i]) end
    count(3, 'x', dead)
  end
  if argv[2] ~= '1' then return wrong end
  if redis.call('ZCARD', p .. 't') + redis.call('SCARD', p .. 'b') > TENANTS then return wrong end
  local lanes, seen = redis.call('SMEMBERS', p .. 'b'), {}
  for i = 1, #lanes do seen[lanes[i]] = true end
  local ringed, full = redis.call('ZRANGE', p .. 't', 0, -1), redis.call('SMEMBERS', p .. 'B')
  for i = 1, #full do
    if not redis.call('ZSCORE', p .. 't', full[i]) then ringed[#ringed + 1] = full[i] end
  end
  for i = 1, #ringed do
    local names = redis.call('ZRANGE', p .. 'r:' .. ringed[i], 0, TENANTS)
    for n = 1, #names do
      local lane = ringed[i] .. Z .. names[n]
      if not seen[lane] then lanes[#lanes + 1] = lane end
    end
    if #lanes > TENANTS then return wrong end
  end
  local waiting = redis.call('ZCARD', p .. 'w') + redis.call('ZCARD', p .. 'l')
  for i = 1, #lanes do waiting = waiting + redis.call('LLEN', p .. 'q:' .. lanes[i]) end
  count(1, 'o', waiting)
  return wrong
end

redis.register_function('@_check_flights', check_flights)
redis.register_function('@_check_counters', check_counters)
