-- Removes those of some entries of a tenant's stream whose deliveries are all removed.
local function sweep(p, tenant, entries)
  local dead = {}
  for e = 1, #entries do
    local wanted, first = parts(entries[e])
    for i = 1, #wanted do wanted[i] = p .. 'd:' .. tenant .. Z .. wanted[i] end
    local records = mget(wanted)
    local alive = false
    for i = 1, #wanted do
      alive = alive or (records[i] and string.sub(records[i], 1, 16) == num(first + i - 1))
    end
    if not alive then dead[#dead + 1] = entries[e][1] end
  end
  if #dead > 0 then redis.call('XDEL', p .. 'i:' .. tenant, unpack(dead)) end
end

-- Clears a tenant's stream of what was removed. Goes on where it ended last time and around the end,
-- for an entry with an open delivery may stay long.
local function clear(p, tenant, budget)
  local key = p .. 'i:' .. tenant
  local from = redis.call('HGET', p .. 'j', tenant)
  local entries = redis.call('XRANGE', key, from and '(' .. from or '-', '+', 'COUNT', budget)
  sweep(p, tenant, entries)
  if from and #entries < budget then
    entries = redis.call('XRANGE', key, '-', from, 'COUNT', budget - #entries)
    sweep(p, tenant, entries)
  end
  if #entries > 0 then
    redis.call('HSET', p .. 'j', tenant, entries[#entries][1])
  end
  if redis.call('XLEN', key) == 0 then
    redis.call('DEL', key)
    redis.call('HDEL', p .. 'j', tenant)
  end
end

-- ARGV: age in ms, most per tenant, most to look at, then tenants. Reply: how many were removed,
-- how many were looked at.
local function retain(keys, argv)
  local p = keys[1]
  local oldest = math.floor(time() / 1000) - tonumber(argv[1])
  local most, budget = tonumber(argv[2]), tonumber(argv[3])
  local removed, looked = 0, 0
  for t = 4, #argv do
    local tenant = argv[t]
    local line = p .. 'f:' .. tenant
    local before = removed
    local kept = tonumber(redis.call('HGET', p .. 'm', tenant) or '0')
    while looked < budget do
      local lines = redis.call('LRANGE', line, 0, math.min(100, budget - looked) - 1)
      local ids, attempts, times, wanted = {}, {}, {}, {}
      for i = 1, #lines do
        times[i], attempts[i], ids[i] = split(lines[i])
        wanted[i] = p .. 'd:' .. tenant .. Z .. ids[i]
      end
      local records = mget(wanted)
      local done, gone, buried, totals = 0, {}, {}, { s = 0, x = 0 }
      for i = 1, #lines do
        local kind, event, _, latest = nil, nil, nil, nil
        if records[i] then kind, event, _, latest = envelope(records[i]) end
        -- What was replayed since is open, or stands further back in the line.
        if totals[kind] and latest == attempts[i] then
          if tonumber(times[i]) > oldest and kept <= most then break end
          kept = kept - 1
          totals[kind] = totals[kind] + 1
          gone[#gone + 1] = wanted[i]
          if kind == 'x' then buried[#buried + 1] = ids[i] end
          local shared = p .. 'c:' .. tenant .. Z .. event
          if redis.call('EXISTS', shared) == 0 then
            gone[#gone + 1] = p .. 'e:' .. tenant .. Z .. event
          elseif redis.call('DECR', shared) < 0 then
            gone[#gone + 1] = shared
            gone[#gone + 1] = p .. 'e:' .. tenant .. Z .. event
          end
        end
        done = i
      end
      if done == 0 then break end
      looked = looked + done
      redis.call('LTRIM', line, done, -1)
      plain('DEL', gone)
      many('ZREM', p .. 'x:' .. tenant, buried)
      for kind, count in pairs(totals) do
        if count > 0 then redis.call('HINCRBY', p .. 'k', kind, -count) end
        removed = removed + count
      end
      if done < #lines then break end
    end
    if kept <= 0 then
      redis.call('HDEL', p .. 'm', tenant)
    elseif removed > before then
      redis.call('HINCRBY', p .. 'm', tenant, before - removed)
    end
    if removed > before or kept <= 0 then
      -- At least as many as were removed, however few deliveries an entry holds.
      clear(p, tenant, math.min(removed - before, 250) + 50)
    end
    if redis.call('EXISTS', line, p .. 'i:' .. tenant) == 0 then redis.call('SREM', p .. 'T', tenant) end
    if looked >= budget then break end
  end
  return { removed, looked }
end

redis.register_function('@_retain', retain)
