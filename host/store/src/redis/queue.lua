-- The queue of wasmhook as server-side functions. Each call is one atomic step on one shard.
--
-- KEYS[1] is the shard's prefix, such as `{wasmhook:3}:`; every other key is made by appending to
-- it, so that all keys of a call lie in one slot of a cluster. ARGV and replies are flat.
--
--   d:<tenant>\0<delivery>   record: 16 digits creation stamp, event \0 endpoint \0 attempt \0 packed
--   e:<tenant>\0<event>      the event, packed by the client
--   c:<tenant>\0<event>      how many deliveries beyond one share the event; absent for one
--   q:<tenant>\0<endpoint>   lane: list of due delivery ids
--   r:<tenant>               ring of the tenant's endpoints that can be served, by last turn
--   t                        ring of tenants that can be served, by last turn
--   n                        hash: lane -> deliveries in flight
--   w                        waiting members by the time they are due, in ms
--   l                        leased members by the fence, which is also the end of the lease, in us
--   o: s: x:<tenant>         open, succeeded and dead-letter ids by creation stamp
--   f:<tenant>               finished ids in order of finishing: <ms> \0 <attempt> \0 <delivery>
--   k                        hash: how many are open, succeeded and dead letters (o, s, x)
--   u                        the last stamp given out
--   T                        set of tenants that have deliveries
--
-- A member is <tenant> \0 <endpoint> \0 <delivery>. No id holds a zero byte.
-- A stamp is a time in microseconds, made larger than every stamp before it: unique in the shard.

local CHUNK = 2000      -- arguments per variadic command; Lua's stack holds some 8000
local PROMOTE = 1000    -- waiting deliveries made due per lease call
local RECLAIM = 1000    -- expired leases put back per lease call
local SCAN = 256        -- tenants and lanes looked at in one pass of a lease

local Z = '\0'

local function num(value)
  return string.format('%.0f', value)
end

-- The server's time in microseconds.
local function time()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

-- The next stamp that may be given out, and how to say which was the last.
local function next_stamp(p, now)
  local last = tonumber(redis.call('GET', p .. 'u') or '0')
  return last >= now and last + 1 or now
end

local function stamped(p, last)
  redis.call('SET', p .. 'u', num(last))
end

-- Gives out `count` stamps and returns the first.
local function stamps(p, now, count)
  local first = next_stamp(p, now)
  stamped(p, first + count - 1)
  return first
end

-- Calls a variadic command in chunks; `step` arguments belong together.
local function many(command, key, args, step)
  local n = #args
  if n == 0 then return end
  if n <= CHUNK then
    redis.call(command, key, unpack(args))
    return
  end
  local width = CHUNK - CHUNK % (step or 1)
  for i = 1, n, width do
    redis.call(command, key, unpack(args, i, math.min(i + width - 1, n)))
  end
end

local function mget(keys)
  local n = #keys
  if n <= CHUNK then return redis.call('MGET', unpack(keys)) end
  local all = {}
  for i = 1, n, CHUNK do
    local part = redis.call('MGET', unpack(keys, i, math.min(i + CHUNK - 1, n)))
    for j = 1, #part do all[i + j - 1] = part[j] end
  end
  return all
end

local function zmscore(key, members)
  local n = #members
  if n <= CHUNK then return redis.call('ZMSCORE', key, unpack(members)) end
  local all = {}
  for i = 1, n, CHUNK do
    local part = redis.call('ZMSCORE', key, unpack(members, i, math.min(i + CHUNK - 1, n)))
    for j = 1, #part do all[i + j - 1] = part[j] end
  end
  return all
end

-- Appends values to the list that `groups` keeps for a name.
local function add(groups, name, a, b)
  local group = groups[name]
  if not group then
    group = {}
    groups[name] = group
  end
  group[#group + 1] = a
  if b then group[#group + 1] = b end
end

-- The parts of a member or lane.
local function split(member)
  local a = string.find(member, Z, 1, true)
  local b = string.find(member, Z, a + 1, true)
  return string.sub(member, 1, a - 1), string.sub(member, a + 1, b - 1), string.sub(member, b + 1)
end

-- Event, endpoint and attempt of a record.
local function envelope(record)
  local a = string.find(record, Z, 17, true)
  local b = string.find(record, Z, a + 1, true)
  local c = string.find(record, Z, b + 1, true)
  return string.sub(record, 17, a - 1), string.sub(record, a + 1, b - 1), string.sub(record, b + 1, c - 1)
end

-- Tells waiting hosts that there is work; `quiet` is whether nothing could be served before. Who is
-- awake leases until it gets less than it asked for, so one message per start of work is enough.
local function wake(p, channel, quiet)
  if quiet and channel ~= '' and redis.call('EXISTS', p .. 't') == 1 then
    redis.call('PUBLISH', channel, '1')
  end
end

-- Puts lanes into the rings at the end of the line, where they are not in them yet. `lanes` maps
-- tenant -> list of endpoints.
local function ring(p, lanes, stamp)
  local turn = num(stamp)
  local tenants = {}
  for tenant, endpoints in pairs(lanes) do
    local args = {}
    for i = 1, #endpoints do
      args[#args + 1] = turn
      args[#args + 1] = endpoints[i]
    end
    local n = #args
    local width = CHUNK - CHUNK % 2
    for i = 1, n, width do
      redis.call('ZADD', p .. 'r:' .. tenant, 'NX', unpack(args, i, math.min(i + width - 1, n)))
    end
    tenants[#tenants + 1] = turn
    tenants[#tenants + 1] = tenant
  end
  local n = #tenants
  for i = 1, n, CHUNK do
    redis.call('ZADD', p .. 't', 'NX', unpack(tenants, i, math.min(i + CHUNK - 1, n)))
  end
end

-- Pushes due deliveries to their lanes and the lanes into the rings. `queues` maps
-- <tenant> \0 <endpoint> -> ids.
local function queue(p, queues, stamp, command)
  local lanes = {}
  for lane, ids in pairs(queues) do
    many(command, p .. 'q:' .. lane, ids)
    local cut = string.find(lane, Z, 1, true)
    add(lanes, string.sub(lane, 1, cut - 1), string.sub(lane, cut + 1))
  end
  ring(p, lanes, stamp)
end

-- Takes `counts` (lane -> how many) from what is in flight.
local function landed(p, counts)
  for lane, count in pairs(counts) do
    if redis.call('HINCRBY', p .. 'n', lane, -count) <= 0 then
      redis.call('HDEL', p .. 'n', lane)
    end
  end
end

-- ARGV: channel, then per event: tenant, event id, extends (0|1), packed event, number of
-- deliveries, and per delivery: id, endpoint, packed. Reply: per event the number created, or -1
-- for a duplicate.
local function enqueue(keys, argv)
  local p = keys[1]
  local first = next_stamp(p, time())
  local stamp = first
  local quiet = redis.call('EXISTS', p .. 't') == 0
  local queues, open, tenants = {}, {}, {}
  local reply, total = {}, 0
  local i = 2
  while i <= #argv do
    local tenant, event, extends = argv[i], argv[i + 1], argv[i + 2] == '1'
    local packed, count = argv[i + 3], tonumber(argv[i + 4])
    i = i + 5
    local key = tenant .. Z .. event
    local created = 0
    if count == 0 then
      reply[#reply + 1] = (not extends and redis.call('EXISTS', p .. 'e:' .. key) == 1) and -1 or 0
    else
      local fresh = redis.call('SET', p .. 'e:' .. key, packed, 'NX')
      if fresh or extends then
        for j = i, i + count * 3 - 1, 3 do
          local id, endpoint = argv[j], argv[j + 1]
          local at = num(stamp)
          local record = at .. event .. Z .. endpoint .. Z .. '0' .. Z .. argv[j + 2]
          if redis.call('SET', p .. 'd:' .. tenant .. Z .. id, record, 'NX') then
            created = created + 1
            stamp = stamp + 1
            add(queues, tenant .. Z .. endpoint, id)
            add(open, tenant, at, id)
          end
        end
        if fresh and created == 0 then
          redis.call('DEL', p .. 'e:' .. key)
        else
          local more = created
          if fresh then more = created - 1 end
          if more > 0 then redis.call('INCRBY', p .. 'c:' .. key, more) end
        end
        reply[#reply + 1] = created
      else
        reply[#reply + 1] = -1
      end
      i = i + count * 3
    end
    total = total + created
  end
  if total > 0 then
    stamped(p, stamp - 1)
    for tenant, args in pairs(open) do
      many('ZADD', p .. 'o:' .. tenant, args, 2)
      tenants[#tenants + 1] = tenant
    end
    many('SADD', p .. 'T', tenants)
    redis.call('HINCRBY', p .. 'k', 'o', total)
    queue(p, queues, first, 'RPUSH')
    wake(p, argv[1], quiet)
  end
  return reply
end

-- ARGV: tenant, event id, and so on. Reply: 1 or 0 for each.
local function known(keys, argv)
  local reply = {}
  for i = 1, #argv, 2 do
    reply[#reply + 1] = redis.call('EXISTS', keys[1] .. 'e:' .. argv[i] .. Z .. argv[i + 1])
  end
  return reply
end

-- Makes waiting deliveries due whose time has come; returns when the next one comes, in us.
local function promote(p, now, stamp, channel)
  local key = p .. 'w'
  local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if #head == 0 then return nil end
  local ms = math.floor(now / 1000)
  if tonumber(head[2]) > ms then return tonumber(head[2]) * 1000 end
  local due = redis.call('ZRANGE', key, '-inf', num(ms), 'BYSCORE', 'LIMIT', 0, PROMOTE)
  local queues = {}
  for i = 1, #due do
    local tenant, endpoint, id = split(due[i])
    add(queues, tenant .. Z .. endpoint, id)
  end
  many('ZREM', key, due)
  local quiet = redis.call('EXISTS', p .. 't') == 0
  queue(p, queues, stamp, 'RPUSH')
  -- There may be more than who asks can take.
  if #due > 1 then wake(p, channel, quiet) end
  head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return head[2] and tonumber(head[2]) * 1000
end

-- Puts back what expired leases hold, before what waits in the lane; returns the end of the next
-- lease, in us.
local function reclaim(p, now, stamp, channel)
  local key = p .. 'l'
  local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if #head == 0 then return nil end
  if tonumber(head[2]) > now then return tonumber(head[2]) end
  local expired = redis.call('ZRANGE', key, '-inf', num(now), 'BYSCORE', 'LIMIT', 0, RECLAIM)
  local queues, counts = {}, {}
  for i = 1, #expired do
    local tenant, endpoint, id = split(expired[i])
    local lane = tenant .. Z .. endpoint
    add(queues, lane, id)
    counts[lane] = (counts[lane] or 0) + 1
  end
  many('ZREM', key, expired)
  landed(p, counts)
  local quiet = redis.call('EXISTS', p .. 't') == 0
  queue(p, queues, stamp, 'LPUSH')
  if #expired > 1 then wake(p, channel, quiet) end
  head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return head[2] and tonumber(head[2])
end

-- Takes up to `want` deliveries of one tenant from its lanes in turn; appends to `out` tenant,
-- endpoint, id. Returns how many, and whether lanes are left in the ring.
local function serve(p, tenant, want, cap, stamp, out)
  local key = p .. 'r:' .. tenant
  local lanes = redis.call('ZRANGE', key, 0, math.min(want, SCAN) - 1)
  local n = #lanes
  if n == 0 then return 0, false end
  local fields = {}
  for i = 1, n do fields[i] = tenant .. Z .. lanes[i] end
  local busy = redis.call('HMGET', p .. 'n', unpack(fields))
  local gone, turns = {}, {}
  local taken = 0
  local even = math.floor(want / n)
  for i = 1, n do
    local room = cap - (tonumber(busy[i] or '0') or 0)
    local share = math.min(math.ceil((want - taken) / (n - i + 1)), room)
    local got = 0
    if share > 0 then
      local ids = redis.call('LPOP', p .. 'q:' .. fields[i], share)
      if ids then
        got = #ids
        for j = 1, got do
          local m = #out
          out[m + 1], out[m + 2], out[m + 3] = tenant, lanes[i], ids[j]
        end
        redis.call('HINCRBY', p .. 'n', fields[i], got)
        taken = taken + got
      end
    end
    if room <= 0 or got < share or got == room then
      gone[#gone + 1] = lanes[i]
    elseif got > 0 then
      -- Who got more than an even share is the last to get more next time.
      turns[#turns + 1] = num(got > even and stamp + 1 or stamp)
      turns[#turns + 1] = lanes[i]
    end
  end
  if #gone > 0 then redis.call('ZREM', key, unpack(gone)) end
  if #turns > 0 then redis.call('ZADD', key, 'XX', unpack(turns)) end
  local left = #gone < n or redis.call('EXISTS', key) == 1
  return taken, left
end

-- ARGV: channel, most, duration in us, most per endpoint. Reply: us until there is more to do (-1: nothing
-- waits), fence, then per delivery: tenant, id, record, event.
local function lease(keys, argv)
  local p = keys[1]
  local want, duration, cap = tonumber(argv[2]), tonumber(argv[3]), tonumber(argv[4])
  local now = time()
  -- Two, for who got more than an even share goes behind who did not.
  local stamp = stamps(p, now, 2)
  local ends = reclaim(p, now, stamp, argv[1])
  local due = promote(p, now, stamp, argv[1])

  local out, taken = {}, 0
  while taken < want do
    local tenants = redis.call('ZRANGE', p .. 't', 0, math.min(want - taken, SCAN) - 1)
    local n = #tenants
    if n == 0 then break end
    local gone, turns = {}, {}
    local even = math.floor((want - taken) / n)
    for i = 1, n do
      local share = math.ceil((want - taken) / (n - i + 1))
      if share > 0 then
        local got, left = serve(p, tenants[i], share, cap, stamp, out)
        taken = taken + got
        if not left then
          gone[#gone + 1] = tenants[i]
        elseif got > 0 then
          turns[#turns + 1] = num(got > even and stamp + 1 or stamp)
          turns[#turns + 1] = tenants[i]
        end
      end
    end
    if #gone > 0 then redis.call('ZREM', p .. 't', unpack(gone)) end
    if #turns > 0 then redis.call('ZADD', p .. 't', 'XX', unpack(turns)) end
  end

  local fence = num(stamp + duration)
  local reply = { -1, fence }
  if taken > 0 then
    local records, members = {}, {}
    for i = 1, #out, 3 do
      records[#records + 1] = p .. 'd:' .. out[i] .. Z .. out[i + 2]
    end
    records = mget(records)
    local events, places, lost = {}, {}, {}
    for i = 1, #records do
      local at = i * 3 - 2
      if records[i] then
        local event = envelope(records[i])
        events[#events + 1] = p .. 'e:' .. out[at] .. Z .. event
        places[#places + 1] = i
      else
        local lane = out[at] .. Z .. out[at + 1]
        lost[lane] = (lost[lane] or 0) + 1
      end
    end
    if #events > 0 then
      events = mget(events)
      for e = 1, #events do
        local i = places[e]
        local at = i * 3 - 2
        if events[e] then
          local m = #reply
          reply[m + 1], reply[m + 2], reply[m + 3], reply[m + 4] = out[at], out[at + 2], records[i], events[e]
          members[#members + 1] = fence
          members[#members + 1] = out[at] .. Z .. out[at + 1] .. Z .. out[at + 2]
        else
          local lane = out[at] .. Z .. out[at + 1]
          lost[lane] = (lost[lane] or 0) + 1
        end
      end
    end
    -- Nothing is lost unless the server evicts keys; then what is left of it must not hold a place.
    landed(p, lost)
    for lane in pairs(lost) do
      local cut = string.find(lane, Z, 1, true)
      ring(p, { [string.sub(lane, 1, cut - 1)] = { string.sub(lane, cut + 1) } }, stamp)
    end
    many('ZADD', p .. 'l', members, 2)
    if #members > 0 then
      local mine = stamp + duration
      if not ends or mine < ends then ends = mine end
    end
  end
  local next_due = due
  if ends and (not next_due or ends < next_due) then next_due = ends end
  if next_due then reply[1] = math.max(0, math.ceil(next_due - now)) end
  return reply
end

-- Which of these leases are in force. `members` and `fences` run alike; what is named twice counts
-- once. Returns a list of booleans and the members to remove.
local function in_force(p, members, fences)
  local scores = zmscore(p .. 'l', members)
  local valid, held, seen = {}, {}, {}
  for i = 1, #members do
    local ok = scores[i] and not seen[members[i]] and tonumber(scores[i]) == tonumber(fences[i])
    valid[i] = ok
    if ok then
      seen[members[i]] = true
      held[#held + 1] = members[i]
    end
  end
  return valid, held
end

-- ARGV: channel, then per outcome: tenant, endpoint, id, fence, kind (s, x or f), wait in ms,
-- attempt, record. Reply: 1 or 0 for each: written, or the lease is lost.
local function record(keys, argv)
  local p = keys[1]
  local members, fences = {}, {}
  for i = 2, #argv, 8 do
    members[#members + 1] = argv[i] .. Z .. argv[i + 1] .. Z .. argv[i + 2]
    fences[#fences + 1] = argv[i + 3]
  end
  if #members == 0 then return {} end
  local valid, held = in_force(p, members, fences)
  local reply = {}
  if #held == 0 then
    for i = 1, #members do reply[i] = 0 end
    return reply
  end
  many('ZREM', p .. 'l', held)
  local now = time()
  local ms = math.floor(now / 1000)
  local written, open, finished, waiting = {}, {}, {}, {}
  local done = { s = {}, x = {} }
  local counts = {}
  local totals = { s = 0, x = 0, f = 0 }
  for n = 1, #members do
    reply[n] = valid[n] and 1 or 0
    if valid[n] then
      local i = 2 + (n - 1) * 8
      local tenant, id, kind, value = argv[i], argv[i + 2], argv[i + 4], argv[i + 7]
      local lane = tenant .. Z .. argv[i + 1]
      counts[lane] = (counts[lane] or 0) + 1
      written[#written + 1] = p .. 'd:' .. tenant .. Z .. id
      written[#written + 1] = value
      totals[kind] = totals[kind] + 1
      if kind == 'f' then
        waiting[#waiting + 1] = num(ms + tonumber(argv[i + 5]))
        waiting[#waiting + 1] = members[n]
      else
        add(open, tenant, id)
        add(done[kind], tenant, string.sub(value, 1, 16), id)
        add(finished, tenant, num(ms) .. Z .. argv[i + 6] .. Z .. id)
      end
    end
  end
  for i = 1, #written, CHUNK do
    redis.call('MSET', unpack(written, i, math.min(i + CHUNK - 1, #written)))
  end
  for tenant, ids in pairs(open) do many('ZREM', p .. 'o:' .. tenant, ids) end
  for kind, tenants in pairs(done) do
    for tenant, args in pairs(tenants) do many('ZADD', p .. kind .. ':' .. tenant, args, 2) end
    if totals[kind] > 0 then redis.call('HINCRBY', p .. 'k', kind, totals[kind]) end
  end
  for tenant, entries in pairs(finished) do many('RPUSH', p .. 'f:' .. tenant, entries) end
  local ended = totals.s + totals.x
  if ended > 0 then redis.call('HINCRBY', p .. 'k', 'o', -ended) end
  if #waiting > 0 then
    -- A new head of the line is due earlier than what hosts that wait know of.
    local head = redis.call('ZRANGE', p .. 'w', 0, 0, 'WITHSCORES')
    many('ZADD', p .. 'w', waiting, 2)
    local new = redis.call('ZRANGE', p .. 'w', 0, 0, 'WITHSCORES')
    if argv[1] ~= '' and (not head[2] or tonumber(new[2]) < tonumber(head[2])) then
      redis.call('PUBLISH', argv[1], '1')
    end
  end
  landed(p, counts)
  -- Lanes that were full have room again.
  local lanes, any = {}, false
  for lane in pairs(counts) do
    if redis.call('EXISTS', p .. 'q:' .. lane) == 1 then
      local cut = string.find(lane, Z, 1, true)
      add(lanes, string.sub(lane, 1, cut - 1), string.sub(lane, cut + 1))
      any = true
    end
  end
  if any then
    local quiet = redis.call('EXISTS', p .. 't') == 0
    ring(p, lanes, stamps(p, now, 1))
    wake(p, argv[1], quiet)
  end
  return reply
end

-- ARGV: channel, then per lease: tenant, endpoint, id, fence.
local function release(keys, argv)
  local p = keys[1]
  local members, fences = {}, {}
  for i = 2, #argv, 4 do
    members[#members + 1] = argv[i] .. Z .. argv[i + 1] .. Z .. argv[i + 2]
    fences[#fences + 1] = argv[i + 3]
  end
  if #members == 0 then return 0 end
  local _, held = in_force(p, members, fences)
  if #held == 0 then return 0 end
  many('ZREM', p .. 'l', held)
  local queues, counts = {}, {}
  -- From the last to the first, because each goes to the front.
  for i = #held, 1, -1 do
    local tenant, endpoint, id = split(held[i])
    local lane = tenant .. Z .. endpoint
    add(queues, lane, id)
    counts[lane] = (counts[lane] or 0) + 1
  end
  landed(p, counts)
  local quiet = redis.call('EXISTS', p .. 't') == 0
  queue(p, queues, stamps(p, time(), 1), 'LPUSH')
  wake(p, argv[1], quiet)
  return #held
end

-- ARGV: tenant, id. Reply: record and end of the lease in us, or nothing.
local function get(keys, argv)
  local p = keys[1]
  local value = redis.call('GET', p .. 'd:' .. argv[1] .. Z .. argv[2])
  if not value then return {} end
  local _, endpoint = envelope(value)
  local ends = redis.call('ZSCORE', p .. 'l', argv[1] .. Z .. endpoint .. Z .. argv[2])
  return { value, ends and num(tonumber(ends)) or '' }
end

-- ARGV: tenant, the indexes to merge (letters of o, s and x), the stamp below which to go on, how
-- many. Reply: per delivery id, stamp, record (empty if gone), end of the lease in us (or empty);
-- newest first.
local function list(keys, argv)
  local p = keys[1]
  local tenant, indexes, from, count = argv[1], argv[2], argv[3], tonumber(argv[4])
  local found = {}
  for i = 1, #indexes do
    local part = redis.call('ZRANGE', p .. string.sub(indexes, i, i) .. ':' .. tenant, from, '-inf',
      'BYSCORE', 'REV', 'LIMIT', 0, count, 'WITHSCORES')
    for j = 1, #part, 2 do found[#found + 1] = { part[j], tonumber(part[j + 1]) } end
  end
  if #found == 0 then return {} end
  if #indexes > 1 then
    table.sort(found, function(a, b) return a[2] > b[2] end)
  end
  local n = math.min(#found, count)
  local wanted = {}
  for i = 1, n do wanted[i] = p .. 'd:' .. tenant .. Z .. found[i][1] end
  local records = mget(wanted)
  local members = {}
  for i = 1, n do
    local endpoint = ''
    if records[i] then
      local _
      _, endpoint = envelope(records[i])
    end
    members[i] = tenant .. Z .. endpoint .. Z .. found[i][1]
  end
  local ends = {}
  if string.find(indexes, 'o', 1, true) then ends = zmscore(p .. 'l', members) end
  local reply = {}
  for i = 1, n do
    local m = #reply
    reply[m + 1], reply[m + 2] = found[i][1], num(found[i][2])
    reply[m + 3], reply[m + 4] = records[i] or '', ends[i] and num(tonumber(ends[i])) or ''
  end
  return reply
end

-- ARGV: channel, tenant, id, endpoint, record as read, record to be. Reply: 1 moved, 0 the record
-- is another one by now, -1 not finished.
local function replay(keys, argv)
  local p = keys[1]
  local tenant, id, value = argv[2], argv[3], argv[6]
  local key = p .. 'd:' .. tenant .. Z .. id
  if redis.call('GET', key) ~= argv[5] then return 0 end
  local kind = nil
  if redis.call('ZREM', p .. 's:' .. tenant, id) == 1 then
    kind = 's'
  elseif redis.call('ZREM', p .. 'x:' .. tenant, id) == 1 then
    kind = 'x'
  end
  if not kind then return -1 end
  redis.call('SET', key, value)
  redis.call('ZADD', p .. 'o:' .. tenant, string.sub(value, 1, 16), id)
  redis.call('HINCRBY', p .. 'k', kind, -1)
  redis.call('HINCRBY', p .. 'k', 'o', 1)
  local quiet = redis.call('EXISTS', p .. 't') == 0
  queue(p, { [tenant .. Z .. argv[4]] = { id } }, stamps(p, time(), 1), 'RPUSH')
  wake(p, argv[1], quiet)
  return 1
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
    local kept = redis.call('ZCARD', p .. 's:' .. tenant) + redis.call('ZCARD', p .. 'x:' .. tenant)
    while looked < budget do
      local head = redis.call('LINDEX', line, 0)
      if not head then break end
      local at, attempt, id = split(head)
      if tonumber(at) > oldest and kept <= most then break end
      redis.call('LPOP', line)
      looked = looked + 1
      local key = p .. 'd:' .. tenant .. Z .. id
      local value = redis.call('GET', key)
      if value then
        local event, _, latest = envelope(value)
        -- What was replayed since is open, or stands further back in the line.
        if latest == attempt then
          local kind = nil
          if redis.call('ZREM', p .. 's:' .. tenant, id) == 1 then
            kind = 's'
          elseif redis.call('ZREM', p .. 'x:' .. tenant, id) == 1 then
            kind = 'x'
          end
          if kind then
            redis.call('DEL', key)
            redis.call('HINCRBY', p .. 'k', kind, -1)
            local shared = p .. 'c:' .. tenant .. Z .. event
            if redis.call('DECR', shared) < 0 then
              redis.call('DEL', shared, p .. 'e:' .. tenant .. Z .. event)
            end
            removed = removed + 1
            kept = kept - 1
          end
        end
      end
    end
    if kept == 0 and redis.call('EXISTS', p .. 'o:' .. tenant) == 0 and redis.call('EXISTS', line) == 0 then
      redis.call('SREM', p .. 'T', tenant)
    end
    if looked >= budget then break end
  end
  return { removed, looked }
end

-- Reply: open, leased, succeeded, dead letters.
local function backlog(keys)
  local p = keys[1]
  local k = redis.call('HMGET', p .. 'k', 'o', 's', 'x')
  return { tonumber(k[1] or '0'), redis.call('ZCARD', p .. 'l'), tonumber(k[2] or '0'), tonumber(k[3] or '0') }
end

redis.register_function('@_enqueue', enqueue)
redis.register_function('@_known', known)
redis.register_function('@_lease', lease)
redis.register_function('@_record', record)
redis.register_function('@_release', release)
redis.register_function('@_get', get)
redis.register_function('@_list', list)
redis.register_function('@_replay', replay)
redis.register_function('@_retain', retain)
redis.register_function('@_backlog', backlog)
