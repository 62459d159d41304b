local function has_cap(quota)
  return quota and string.byte(quota, -1) ~= 58
end

-- ARGV: channel, me, then of each tenant that has a quota: tenant, and the quota as in h. Tenants that are not
-- named have none any more. Reply: how many changed.
local function quotas(keys, argv)
  local p = keys[1]
  local before, wanted = {}, {}
  local said = redis.call('HGETALL', p .. 'h')
  for i = 1, #said, 2 do before[said[i]] = said[i + 1] end
  local changed, new, gone, uncapped = {}, {}, {}, {}
  for i = 3, #argv, 2 do
    wanted[argv[i]] = argv[i + 1]
    if before[argv[i]] ~= argv[i + 1] then
      changed[#changed + 1] = argv[i]
      if not has_cap(argv[i + 1]) then
        uncapped[#uncapped + 1] = argv[i]
      elseif not has_cap(before[argv[i]]) then
        new[argv[i]] = 0
      end
    end
  end
  for tenant in pairs(before) do
    if not wanted[tenant] then
      gone[#gone + 1] = tenant
      uncapped[#uncapped + 1] = tenant
      changed[#changed + 1] = tenant
    end
  end
  if #changed == 0 then return 0 end
  if next(new) then
    -- Nobody counted what these have in flight. There are no more leases than hosts can hold.
    local leases = redis.call('ZRANGE', p .. 'l', 0, -1)
    for i = 1, #leases do
      local tenant = string.sub(leases[i], 1, string.find(leases[i], Z, 1, true) - 1)
      if new[tenant] then new[tenant] = new[tenant] + 1 end
    end
    for tenant, count in pairs(new) do redis.call('HSET', p .. 'N', tenant, count) end
  end
  many('HDEL', p .. 'h', gone)
  many('HDEL', p .. 'N', uncapped)
  many('HDEL', p .. 'C', changed)
  local quiet, stamp = is_quiet(p), stamps(p, time(), 1)
  for i = 1, #changed do
    local tenant = changed[i]
    if wanted[tenant] then redis.call('HSET', p .. 'h', tenant, wanted[tenant]) end
    -- Who is still at its cap leaves the ring again with the next lease.
    if redis.call('SREM', p .. 'B', tenant) == 1 and redis.call('EXISTS', p .. 'r:' .. tenant) == 1 then
      redis.call('ZADD', p .. 't', 'NX', num(stamp), tenant)
    end
  end
  wake(p, argv[1], argv[2], quiet)
  return #changed
end

redis.register_function('@_quotas', quotas)
