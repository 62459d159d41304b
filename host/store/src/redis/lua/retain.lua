-- Removing finished deliveries past their retention.

local LINES = 100       -- finished deliveries that are read at once
local ENTRIES = 4       -- entries of a tenant's stream that are read at once

-- Whether all deliveries of an entry of a tenant's stream are removed; and how much it took to find out.
local function is_over(p, tenant, entry)
  local ids, first = parts(entry)
  local n, start = #ids, p .. 'd:' .. tenant .. Z
  local i, step = 1, 1
  while i <= n do
    -- One that is there is found by its first as a rule.
    local last = math.min(i + step - 1, n)
    local keys = {}
    for j = i, last do keys[#keys + 1] = start .. ids[j] end
    if redis.call('EXISTS', unpack(keys)) > 0 then
      for j = i, last do
        local record = redis.call('GET', start .. ids[j])
        -- What was removed and made again has another stamp, and an entry of its own.
        if record and string.sub(record, 1, 16) == num(first + j - 1) then return false, last + n / 8 end
      end
    end
    i, step = last + 1, 16
  end
  return true, n
end

-- Removes those of some entries whose deliveries are all removed. Returns whether those are all of them, and how
-- much it took.
local function sweep(p, tenant, entries)
  local over, took = {}, 0
  for e = 1, #entries do
    local is, cost = is_over(p, tenant, entries[e])
    if is then over[#over + 1] = entries[e][1] end
    took = took + cost
  end
  if #over > 0 then redis.call('XDEL', p .. 'i:' .. tenant, unpack(over)) end
  return #over == #entries, took
end

-- Clears a tenant's stream of what was removed, at a cost of about so many deliveries. What was made first goes first
-- as a rule. An entry with an open delivery may stay long, so the rest is spent on the others: it goes on where it
-- ended last time and around the end.
local function clear(p, tenant, budget)
  local key = p .. 'i:' .. tenant
  local all = true
  while all and budget > 0 do
    local entries = redis.call('XRANGE', key, '-', '+', 'COUNT', ENTRIES)
    if #entries == 0 then
      redis.call('DEL', key)
      redis.call('HDEL', p .. 'j', tenant)
      return
    end
    local took
    all, took = sweep(p, tenant, entries)
    budget = budget - took
  end
  local from, around = redis.call('HGET', p .. 'j', tenant), false
  while budget > 0 do
    local entries = redis.call('XRANGE', key, from and '(' .. from or '-', '+', 'COUNT', ENTRIES)
    if #entries > 0 then
      local _, took = sweep(p, tenant, entries)
      budget = budget - took
      from = entries[#entries][1]
      redis.call('HSET', p .. 'j', tenant, from)
    elseif around then
      return
    else
      from, around = nil, true
    end
  end
end

-- When the delivery of a line of `f` was finished, in ms.
local function finished_at(text)
  return tonumber(string.sub(text, 1, string.find(text, Z, 1, true) - 1))
end

-- Removes some of the deliveries of a tenant's first lines, of which `kept` are finished, and `most` may be; those
-- finished before `oldest` go whatever their number. Returns how many lines it took off, how many deliveries it
-- removed, and whether more may have to go.
local function remove_some(p, tenant, kept, most, oldest, budget)
  local line = p .. 'f:' .. tenant
  local first = redis.call('LRANGE', line, 0, 0)[1]
  if not first then return 0, 0, false end
  local old = finished_at(first) <= oldest
  if not old and kept <= most then return 0, 0, false end
  local lines = redis.call('LRANGE', line, 0, math.min(LINES, budget, old and LINES or kept - most) - 1)
  local ids, attempts, times, wanted = {}, {}, {}, {}
  for i = 1, #lines do
    times[i], attempts[i], ids[i] = split(lines[i])
    wanted[i] = p .. 'd:' .. tenant .. Z .. ids[i]
  end
  local records, kinds, shares = mget(wanted), {}, {}
  for i = 1, #lines do
    local kind, event, _, latest = nil, nil, nil, nil
    if records[i] then kind, event, _, latest = envelope(records[i]) end
    -- What was replayed since is open, or stands further back in the line.
    if (kind == 's' or kind == 'x') and latest == attempts[i] then
      kinds[i] = kind
      shares[i] = tenant .. Z .. event
    end
  end
  local shared_keys = {}
  for _, name in pairs(shares) do shared_keys[#shared_keys + 1] = p .. 'c:' .. name end
  local shared = existing(shared_keys)
  local done, gone, buried, totals = #lines, {}, {}, { s = 0, x = 0 }
  for i = 1, #lines do
    if kinds[i] then
      if tonumber(times[i]) > oldest and kept <= most then
        done = i - 1
        break
      end
      kept = kept - 1
      totals[kinds[i]] = totals[kinds[i]] + 1
      gone[#gone + 1] = wanted[i]
      if kinds[i] == 'x' then buried[#buried + 1] = ids[i] end
      local count = p .. 'c:' .. shares[i]
      if not shared[count] then
        gone[#gone + 1] = p .. 'e:' .. shares[i]
      elseif redis.call('DECR', count) < 0 then
        gone[#gone + 1] = count
        gone[#gone + 1] = p .. 'e:' .. shares[i]
      end
    end
  end
  if done == 0 then return 0, 0, false end
  redis.call('LTRIM', line, done, -1)
  plain('DEL', gone)
  many('ZREM', p .. 'x:' .. tenant, buried)
  for kind, count in pairs(totals) do
    if count > 0 then redis.call('HINCRBY', p .. 'k', kind, -count) end
  end
  return done, totals.s + totals.x, done == #lines
end

-- ARGV: age in ms, most per tenant, most lines to look at, then tenants. Reply: how many deliveries were removed,
-- and with how many of the tenants, from the first on, it is done.
local function retain(keys, argv)
  local p = keys[1]
  local oldest = math.floor(time() / 1000) - tonumber(argv[1])
  local most, budget = tonumber(argv[2]), tonumber(argv[3])
  local tenants = {}
  for t = 4, #argv do tenants[t - 3] = argv[t] end
  local counts = ask('HMGET', p .. 'm', tenants)
  local all = 0
  for t = 1, #tenants do
    local tenant, removed = tenants[t], 0
    local had = tonumber(counts[t] or '0') or 0
    local more = true
    while more and budget > 0 do
      local lines, gone
      lines, gone, more = remove_some(p, tenant, had - removed, most, oldest, budget)
      removed = removed + gone
      budget = budget - lines
    end
    all = all + removed
    local kept = had - removed
    if kept <= 0 then
      redis.call('HDEL', p .. 'm', tenant)
    elseif removed > 0 then
      redis.call('HINCRBY', p .. 'm', tenant, -removed)
    end
    if removed > 0 or kept <= 0 then
      clear(p, tenant, removed + 50)
      if redis.call('EXISTS', p .. 'f:' .. tenant, p .. 'i:' .. tenant) == 0 then
        redis.call('SREM', p .. 'T', tenant)
      end
    end
    if more and budget <= 0 then return { all, t - 1 } end
  end
  return { all, #tenants }
end

redis.register_function('@_retain', retain)
