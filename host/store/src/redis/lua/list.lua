-- What is asked about deliveries: by one, by lists, by counts.

-- ARGV: member. Reply: record, end of the lease in us (or empty), and the delivery whose turn it is in its
-- sequence (or empty); or nothing.
local function get(keys, argv)
  local p = keys[1]
  local value = redis.call('GET', p .. 'd:' .. argv[1])
  if not value then return {} end
  local ends = redis.call('ZSCORE', p .. 'l', argv[1])
  ends = ends and num(tonumber(ends)) or ''
  local policy, _, key = sequence(value)
  local _, _, endpoint = envelope(value)
  if not endpoint then return { value, ends, '', 0 } end
  local lane = string.sub(argv[1], 1, string.find(argv[1], Z, 1, true)) .. endpoint
  local first = policy and redis.call('ZRANGE', p .. 'g:' .. lane .. Z .. key, 0, 0)[1]
  local stalls = tonumber(redis.call('HGET', p .. 'S', lane) or '0') >= STEP
  return { value, ends, first or '', stalls and 1 or 0 }
end

-- Adds to a list's reply: id, stamp, record, end of the lease in us (or empty), for those that have a
-- record of that stamp: an id may have been removed and made again since it was listed. `leases` says
-- whether only deliveries with (1) or without (0) a lease are wanted.
local function rows(p, tenant, ids, stamps_of, kind, leases, reply)
  local wanted, members = {}, {}
  for i = 1, #ids do
    members[i] = tenant .. Z .. ids[i]
    wanted[i] = p .. 'd:' .. members[i]
  end
  local records = mget(wanted)
  local ends = zmscore(p .. 'l', members)
  for i = 1, #ids do
    local value = records[i]
    if value and string.sub(value, 1, 16) == stamps_of[i] and (kind == '' or string.sub(value, 17, 17) == kind) then
      local until_us = ends[i]
      if leases == '' or (leases == '1') == (until_us and true or false) then
        local m = #reply
        reply[m + 1], reply[m + 2], reply[m + 3] = ids[i], stamps_of[i], value
        reply[m + 4] = until_us and num(tonumber(until_us)) or ''
      end
    end
  end
end

-- The ids of an entry of a tenant's stream, and the stamp of the first.
local function parts(entry)
  local ids, start, text = {}, 1, entry[2][2]
  repeat
    local cut = string.find(text, Z, start, true)
    ids[#ids + 1] = string.sub(text, start, cut and cut - 1)
    start = cut and cut + 1
  until not cut
  return ids, tonumber(string.sub(entry[1], 1, string.find(entry[1], '-', 1, true) - 1))
end

-- ARGV: tenant, the stamp below which to go on (or empty), the state wanted (or empty), 1 or 0 for
-- leased or not (or empty), how many, how many to look at. Reply: the stamp below which to go on (empty
-- at the end), then rows; newest first.
local function scan(keys, argv)
  local p, tenant = keys[1], argv[1]
  local below = argv[2] ~= '' and tonumber(argv[2]) or math.huge
  local want, budget = tonumber(argv[5]), tonumber(argv[6])
  local from = argv[2] ~= '' and num(below - 1) .. '-0' or '+'
  local reply = { '' }
  local looked = 0
  while true do
    local entries = redis.call('XREVRANGE', p .. 'i:' .. tenant, from, '-', 'COUNT', 32)
    if #entries == 0 then return reply end
    for e = 1, #entries do
      local ids, first = parts(entries[e])
      local these, stamps_of = {}, {}
      for i = #ids, 1, -1 do
        local stamp = first + i - 1
        if stamp < below then
          these[#these + 1] = ids[i]
          stamps_of[#stamps_of + 1] = num(stamp)
        end
      end
      rows(p, tenant, these, stamps_of, argv[3], argv[4], reply)
      looked = looked + #these
      if (#reply - 1) / 4 >= want or looked >= budget then
        reply[1] = num(first)
        return reply
      end
      from = '(' .. entries[e][1]
    end
  end
end

-- ARGV: tenant, index (o or x), the stamp below which to go on (or empty), 1 or 0 for leased or not (or
-- empty), how many. Reply as of `scan`.
local function list(keys, argv)
  local p, tenant, count = keys[1], argv[1], tonumber(argv[5])
  local below = argv[3] ~= '' and '(' .. argv[3] or '+inf'
  local found = redis.call('ZRANGE', p .. argv[2] .. ':' .. tenant, below, '-inf',
    'BYSCORE', 'REV', 'LIMIT', 0, count, 'WITHSCORES')
  local ids, places = {}, {}
  for i = 1, #found, 2 do
    ids[#ids + 1] = found[i]
    places[#places + 1] = num(tonumber(found[i + 1]))
  end
  local reply = { #ids == count and places[#places] or '' }
  rows(p, tenant, ids, places, '', argv[4], reply)
  return reply
end

-- ARGV: tenant, the stamp below which to go on (or empty), how many. All leases of the tenant are looked
-- at: there are no more than hosts can hold. Reply as of `scan`.
local function leased(keys, argv)
  local p, tenant, count = keys[1], argv[1], tonumber(argv[3])
  local below = argv[2] == '' and math.huge or tonumber(argv[2])
  local start = tenant .. Z
  local ids, wanted = {}, {}
  local members = redis.call('ZRANGE', p .. 'l', 0, -1)
  for i = 1, #members do
    if string.sub(members[i], 1, #start) == start then
      ids[#ids + 1] = string.sub(members[i], #start + 1)
      wanted[#wanted + 1] = p .. 'd:' .. members[i]
    end
  end
  local records, found = mget(wanted), {}
  for i = 1, #ids do
    local stamp = records[i] and tonumber(string.sub(records[i], 1, 16))
    if stamp and stamp < below then found[#found + 1] = { ids[i], stamp } end
  end
  table.sort(found, function(a, b) return a[2] > b[2] end)
  local these, places = {}, {}
  for i = 1, math.min(#found, count) do
    these[i], places[i] = found[i][1], num(found[i][2])
  end
  local reply = { #found > count and places[#places] or '' }
  rows(p, tenant, these, places, '', '1', reply)
  return reply
end

-- Reply: open, leased, succeeded, dead letters, endpoints that stall.
local function backlog(keys)
  local p = keys[1]
  local k = redis.call('HMGET', p .. 'k', 'o', 's', 'x')
  local leased, stalling = redis.call('ZCARD', p .. 'l'), redis.call('HLEN', p .. 'S')
  return { tonumber(k[1] or '0'), leased, tonumber(k[2] or '0'), tonumber(k[3] or '0'), stalling }
end

redis.register_function('@_get', get)
redis.register_function('@_scan', scan)
redis.register_function('@_list', list)
redis.register_function('@_leased', leased)
redis.register_function('@_backlog', backlog)
