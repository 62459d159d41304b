
-- Checking that the structures of a shard agree, and mending them. This is a part of the library that
-- `queue.lua` begins: its structures are described there, and its local functions are used here.
--
-- Every call looks at a bounded number of things, and looks again before it changes anything, for
-- hosts work meanwhile. `mend` in ARGV is 1 to repair, or 0 to tell only.

local LOOKS = 1000000   -- entries of lanes looked through by one call of judge, roughly
local FEW = 4           -- of more suspects at once lanes are read once for all
local LISTED = 500      -- entries of a stream taken over by one call
local TENANTS = 20000   -- of more tenants or lanes at once the counters are left alone

-- State, event, endpoint and attempt of a record; nothing when it is not one that this version reads.
local function facts(value)
  if string.find(value, '^%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d[pfsx][^%z]+%z[^%z]+%z%d+%z') then
    return envelope(value)
  end
end

-- The open state and the endpoint of a record; false for what is missing or finished, nil for what
-- cannot be read and must be left alone.
local function open(value)
  if not value then return false end
  local kind, _, endpoint = facts(value)
  if not kind then return nil end
  if kind == 'p' or kind == 'f' then return kind, endpoint end
  return false
end

-- Where a delivery of this record stands in its sequence: `first`, `behind`, or `out` if it is not in it;
-- nothing if it is to be in none. And the name of the sequence.
local function standing(p, tenant, endpoint, id, value)
  local policy, _, key = sequence(value)
  if not policy then return nil end
  local name = tenant .. Z .. endpoint .. Z .. key
  local score = redis.call('ZSCORE', p .. 'g:' .. name, id)
  if not score then return 'out', name end
  return tonumber(score) == 0 and 'first' or 'behind', name
end

-- Whether it is the turn of an open delivery, or it waits for none.
local function may_go(p, tenant, endpoint, id, value)
  local stands = standing(p, tenant, endpoint, id, value)
  return not stands or stands == 'first'
end

-- The lane without the mark of what is due again.
local function first_lane(lane)
  return string.byte(lane, -1) == 0 and string.sub(lane, 1, -2) or lane
end

-- ARGV: mend, channel, me, then lanes. Reply: the lanes that had entries and were neither in the
-- rings nor waiting for a place in flight.
local function check_lanes(keys, argv)
  local p = keys[1]
  local reply = {}
  for i = 4, #argv do
    local lane = argv[i]
    local cut = string.find(lane, Z, 1, true)
    local tenant = string.sub(lane, 1, cut - 1)
    if redis.call('EXISTS', p .. 'q:' .. lane) == 1 then
      local ringed = redis.call('ZSCORE', p .. 'r:' .. tenant, string.sub(lane, cut + 1))
        and redis.call('ZSCORE', p .. 't', tenant)
      if not ringed then
        -- Out of the ring is right only for who has something in flight, whose end brings it back.
        local blocked = redis.call('SMISMEMBER', p .. 'b', lane)[1] == 1
        local flying = tonumber(redis.call('HGET', p .. 'n', first_lane(lane)) or '0') or 0
        local full = redis.call('SMISMEMBER', p .. 'B', tenant)[1] == 1
          and redis.call('ZSCORE', p .. 'r:' .. tenant, string.sub(lane, cut + 1))
        local all = tonumber(redis.call('HGET', p .. 'N', tenant) or '0') or 0
        if (not blocked or flying <= 0) and (not full or all <= 0) then reply[#reply + 1] = lane end
      end
    end
  end
  if argv[1] == '1' and #reply > 0 then
    local quiet = is_quiet(p)
    many('SREM', p .. 'b', reply)
    for i = 1, #reply do
      redis.call('SREM', p .. 'B', string.sub(reply[i], 1, string.find(reply[i], Z, 1, true) - 1))
    end
    ring(p, reply, stamps(p, time(), 1))
    wake(p, argv[2], argv[3], quiet)
  end
  return reply
end

-- ARGV: lane, place of the last entry to look at counted from the end (-1 is the last), how many.
-- Reads from the end to the front: what is pushed meanwhile is seen twice, and nothing is left out.
-- Reply: how many entries, entries, then those that stand for no delivery that is open and only here.
local function check_entries(keys, argv)
  local p, lane, last = keys[1], argv[1], tonumber(argv[2])
  local cut = string.find(lane, Z, 1, true)
  local tenant, endpoint = string.sub(lane, 1, cut), string.sub(first_lane(lane), cut + 1)
  local owner, ids = string.sub(tenant, 1, -2), {}
  local reply = redis.call('LRANGE', p .. 'q:' .. lane, last - tonumber(argv[3]) + 1, last)
  local n = #reply
  local records, members, waiting = {}, {}, {}
  for i = 1, n do
    local entry = reply[i]
    local id = string.byte(entry) == 45 and string.sub(entry, 2) or string.sub(entry, 17)
    ids[i] = id
    members[i] = tenant .. id
    records[i] = p .. 'd:' .. members[i]
    waiting[i] = tenant .. endpoint .. Z .. id
  end
  records = mget(records)
  local leases, waits = zmscore(p .. 'l', members), zmscore(p .. 'w', waiting)
  for i = 1, n do
    local state, of = open(records[i])
    if state == false or (state and (of ~= endpoint or leases[i] or waits[i]
        or not may_go(p, owner, endpoint, ids[i], records[i]))) then
      reply[#reply + 1] = reply[i]
    end
  end
  table.insert(reply, 1, n)
  return reply
end

-- ARGV: w or l, then members of it. Reply: those that stand for no delivery that is open and only here.
local function check_members(keys, argv)
  local p, kind = keys[1], argv[1]
  local members, records, leased = {}, {}, {}
  for i = 2, #argv do
    local member = argv[i]
    members[i - 1] = member
    if kind == 'w' then
      local tenant, _, id = split(member)
      leased[i - 1] = tenant .. Z .. id
    else
      leased[i - 1] = member
    end
    records[i - 1] = p .. 'd:' .. leased[i - 1]
  end
  records = mget(records)
  local here, leases = zmscore(p .. kind, members), zmscore(p .. 'l', leased)
  local reply = {}
  for i = 1, #members do
    if here[i] then
      local state, of = open(records[i])
      local wrong = state == false
      if state then
        local gap = string.find(leased[i], Z, 1, true)
        local tenant, id = string.sub(leased[i], 1, gap - 1), string.sub(leased[i], gap + 1)
        if kind == 'w' then
          local _, endpoint = split(members[i])
          wrong = of ~= endpoint or leases[i]
        end
        wrong = wrong or not may_go(p, tenant, of, id, records[i])
      end
      if wrong then reply[#reply + 1] = members[i] end
    end
  end
  return reply
end

-- Whether the tenant's stream has the delivery in the entry where its stamp belongs.
local function streamed(p, tenant, id, stamp)
  local entry = redis.call('XREVRANGE', p .. 'i:' .. tenant, stamp .. '-0', '-', 'COUNT', 1)[1]
  return entry and string.find(Z .. entry[2][2] .. Z, Z .. id .. Z, 1, true)
end

-- Puts a member into a set by its score, or out of it. Returns whether it was otherwise.
local function indexed(key, id, stamp, wanted, mend)
  local score = redis.call('ZSCORE', key, id)
  if wanted then
    if score and tonumber(score) == tonumber(stamp) then return false end
    if mend then redis.call('ZADD', key, stamp, id) end
    return true
  end
  if score and mend then redis.call('ZREM', key, id) end
  return score and true or false
end

-- ARGV: mend, the last stamp whose deliveries are asked for their place, then members. Reply: how many
-- were open, succeeded and dead letters, then for what is worth a word: member, letters, endpoint,
-- attempt, stamp. The letters: u cannot be read, e event missing, d due (to be found in a lane), n not in the
-- stream of all, i an index did not agree, s or x finished.
local function check_records(keys, argv)
  local p, mend, cut = keys[1], argv[1] == '1', tonumber(argv[2])
  local wanted, members, places = {}, {}, {}
  for i = 3, #argv do
    members[i - 2] = argv[i]
    wanted[i - 2] = p .. 'd:' .. argv[i]
  end
  local records, leases = mget(wanted), zmscore(p .. 'l', members)
  local counts = { p = 0, f = 0, s = 0, x = 0 }
  local known = {}
  local reply = { 0, 0, 0 }
  local function tell(member, letters, endpoint, attempt, stamp)
    local m = #reply
    reply[m + 1], reply[m + 2], reply[m + 3] = member, letters, endpoint
    reply[m + 4], reply[m + 5] = attempt, stamp
  end
  for i = 1, #members do
    local value, member = records[i], members[i]
    local kind, event, endpoint, attempt
    if value then kind, event, endpoint, attempt = facts(value) end
    if value and not kind then
      tell(member, 'u', '', '', '')
    elseif value then
      counts[kind] = counts[kind] + 1
      local gap = string.find(member, Z, 1, true)
      local tenant, id = string.sub(member, 1, gap - 1), string.sub(member, gap + 1)
      local stamp = string.sub(value, 1, 16)
      local letters = ''
      if kind == 'p' or kind == 'f' then
        if redis.call('EXISTS', p .. 'e:' .. tenant .. Z .. event) == 0 then letters = 'e' end
        local waiting = tenant .. Z .. endpoint .. Z .. id
        if not leases[i] and tonumber(stamp) <= cut and not redis.call('ZSCORE', p .. 'w', waiting)
            and standing(p, tenant, endpoint, id, value) ~= 'behind' then
          letters = letters .. 'd'
        end
      elseif kind == 's' or standing(p, tenant, endpoint, id, value) ~= 'first' then
        letters = kind
      end
      if not streamed(p, tenant, id, stamp) then letters = letters .. 'n' end
      local troubled = indexed(p .. 'o:' .. tenant, id, stamp, kind == 'f', mend)
      if indexed(p .. 'x:' .. tenant, id, stamp, kind == 'x', mend) or troubled then letters = letters .. 'i' end
      if known[tenant] == nil then known[tenant] = redis.call('SMISMEMBER', p .. 'T', tenant)[1] == 1 end
      if not known[tenant] then
        letters = letters .. 'i'
        known[tenant] = true
        if mend then redis.call('SADD', p .. 'T', tenant) end
      end
      if letters ~= '' then tell(member, letters, endpoint, attempt, stamp) end
    end
  end
  reply[1], reply[2], reply[3] = counts.p + counts.f, counts.s, counts.x
  return reply
end

-- ARGV: mend, index (o or x), tenant, then ids of it. Reply: those that do not belong there.
local function check_index(keys, argv)
  local p, key = keys[1], keys[1] .. argv[2] .. ':' .. argv[3]
  local kind = argv[2] == 'o' and 'f' or 'x'
  local ids, records, reply = {}, {}, {}
  for i = 4, #argv do
    ids[i - 3] = argv[i]
    records[i - 3] = p .. 'd:' .. argv[3] .. Z .. argv[i]
  end
  records = mget(records)
  for i = 1, #ids do
    local state = ''
    if records[i] then state = facts(records[i]) end
    if state and state ~= kind and redis.call('ZSCORE', key, ids[i]) then reply[#reply + 1] = ids[i] end
  end
  if argv[1] == '1' and #reply > 0 then many('ZREM', key, reply) end
  return reply
end

-- ARGV: mend, tenant, id, attempt. For a finished delivery whose line is in no list of finished ones: puts
-- one there. Reply: whether it is still finished so, 1 or 0.
local function check_line(keys, argv)
  local p, tenant, id = keys[1], argv[2], argv[3]
  local value = redis.call('GET', p .. 'd:' .. tenant .. Z .. id)
  if not value then return 0 end
  local kind, _, _, attempt = facts(value)
  if (kind ~= 's' and kind ~= 'x') or attempt ~= argv[4] then return 0 end
  if argv[1] == '1' then
    local line = num(math.floor(time() / 1000)) .. Z .. attempt .. Z .. id
    redis.call('RPUSH', p .. 'f:' .. tenant, line)
  end
  return 1
end

-- What changes with every change of how many deliveries of a tenant are finished: the number that is kept,
-- and where its lines begin and end.
local function finished_state(p, tenant)
  local line = p .. 'f:' .. tenant
  return table.concat({
    redis.call('HGET', p .. 'm', tenant) or '', redis.call('LLEN', line),
    redis.call('LRANGE', line, 0, 0)[1] or '', redis.call('LRANGE', line, -1, -1)[1] or '',
  }, Z)
end

-- The id of the last entry of a stream, or nothing.
local function last_entry(key)
  local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  return last and last[1] or ''
end

-- ARGV: tenant, place of the first line to look at, how many. Reply: how many lines there were, how many of
-- them stand for a finished delivery, and what changes with every change of their number.
local function check_finished(keys, argv)
  local p, tenant, from = keys[1], argv[1], tonumber(argv[2])
  local line = p .. 'f:' .. tenant
  local lines = redis.call('LRANGE', line, from, from + tonumber(argv[3]) - 1)
  local attempts, wanted, count = {}, {}, 0
  for i = 1, #lines do
    local _, attempt, id = split(lines[i])
    attempts[i], wanted[i] = attempt, p .. 'd:' .. tenant .. Z .. id
  end
  local records = mget(wanted)
  for i = 1, #lines do
    if records[i] then
      local kind, _, _, attempt = facts(records[i])
      -- What cannot be read is finished, for all that is known.
      if not kind or ((kind == 's' or kind == 'x') and attempt == attempts[i]) then count = count + 1 end
    end
  end
  return { #lines, count, finished_state(p, tenant) }
end

-- ARGV: mend, tenant, its state as of `check_finished` when its lines began to be counted, how many they were.
-- Reply: whether another number was kept, 1 or 0, or -1 when it has changed meanwhile.
local function count_finished(keys, argv)
  local p, tenant, count = keys[1], argv[2], tonumber(argv[4])
  if finished_state(p, tenant) ~= argv[3] then return -1 end
  if tonumber(redis.call('HGET', p .. 'm', tenant) or '0') == count then return 0 end
  if argv[1] == '1' then
    if count > 0 then
      redis.call('HSET', p .. 'm', tenant, num(count))
    else
      redis.call('HDEL', p .. 'm', tenant)
    end
  end
  return 1
end

-- ARGV: tenant, the last entry of its new stream as it was left (or empty to begin one), then stamp and id of
-- deliveries in turn. Goes on with a stream of all that is made anew. Reply: its last entry; nothing when
-- somebody else is at it.
local function relist(keys, argv)
  local p, tenant = keys[1], argv[1]
  local new = p .. 'I:' .. tenant
  if argv[2] == '' then
    redis.call('DEL', new)
  elseif last_entry(new) ~= argv[2] then
    return ''
  end
  local first, ids = nil, {}
  local function entry()
    if #ids > 0 then redis.call('XADD', new, num(first) .. '-0', 'd', table.concat(ids, Z)) end
    ids = {}
  end
  for i = 3, #argv, 2 do
    local stamp = tonumber(argv[i])
    if #ids == ENTRY or (#ids > 0 and stamp ~= first + #ids) then entry() end
    if #ids == 0 then first = stamp end
    ids[#ids + 1] = argv[i + 1]
  end
  entry()
  return last_entry(new)
end

-- ARGV: tenant, the last entry of its new stream as it was left. Takes over what was enqueued meanwhile, and
-- once that is all has the new stream take the place of the old. Reply: the last entry to go on with, `done`,
-- or nothing when somebody else is at it.
local function relisted(keys, argv)
  local p, tenant = keys[1], argv[1]
  local new, old = p .. 'I:' .. tenant, p .. 'i:' .. tenant
  if last_entry(new) ~= argv[2] then return '' end
  local entries = redis.call('XRANGE', old, '(' .. argv[2], '+', 'COUNT', LISTED)
  for e = 1, #entries do redis.call('XADD', new, entries[e][1], 'd', entries[e][2][2]) end
  if #entries == LISTED then return entries[LISTED][1] end
  redis.call('RENAME', new, old)
  return 'done'
end

-- How often each of these entries is in a list, by reading it once: for more than a few of them that is
-- less work than looking for one after the other.
local function tally(key, entries)
  local counts, start = {}, 0
  while true do
    local some = redis.call('LRANGE', key, start, start + CHUNK - 1)
    for i = 1, #some do
      local entry = some[i]
      if entries[entry] then counts[entry] = (counts[entry] or 0) + 1 end
    end
    if #some < CHUNK then return counts end
    start = start + CHUNK
  end
end

-- Where an open delivery should be or an entry was seen: lists with how often, and sets.
-- `wanted` are the entries that will be asked for, if they are many, and `known` what was counted of them.
local function places_of(p, tenant, id, endpoint, forms, wanted, known)
  local found, looked = { lists = {}, total = 0 }, 0
  found.waiting = tenant .. Z .. endpoint .. Z .. id
  found.waits = redis.call('ZSCORE', p .. 'w', found.waiting) and 1 or 0
  for again = 0, 1 do
    local key = p .. 'q:' .. tenant .. Z .. endpoint .. (again == 1 and Z or '')
    local length = redis.call('LLEN', key)
    if length > 0 then
      if wanted and not known[key] then
        known[key] = tally(key, wanted)
        looked = looked + length * #forms
      end
      for f = 1, #forms do
        local count
        if wanted then
          count = known[key][forms[f]] or 0
        else
          count = #redis.call('LPOS', key, forms[f], 'COUNT', 0)
          looked = looked + length
        end
        if count > 0 then
          found.lists[#found.lists + 1] = { key, forms[f], count }
          found.total = found.total + count
        end
      end
    end
  end
  return found, looked
end

-- Takes a delivery out of lanes and the waiting set, but for one entry if that is to be kept.
local function cleared(p, found, keep, known)
  for i = 1, #found.lists do
    local key, form, count = unpack(found.lists[i])
    local left = keep and 1 or 0
    keep = false
    count = count - left
    -- It may be suspected once more in this call.
    if known and known[key] then known[key][form] = left end
    -- From the end, so that it keeps its turn.
    if count > 0 then redis.call('LREM', key, -count, form) end
  end
  if found.waits > 0 then redis.call('ZREM', p .. 'w', found.waiting) end
end

-- ARGV: mend, channel, ms until what was lost is due at the soonest, then per suspect: tenant, id,
-- endpoint and entry of the lane where it was seen (or empty), and the time in ms when it is due.
-- Reply: for as many as could be looked at, - for one in its place, L for an open one that was
-- nowhere, D for one in two places, S for an entry without an open delivery, O for one that goes out of
-- turn; and with it the name of its sequence, if it is to be in one.
--
-- Nobody gets the turn of a sequence here: who has it already may not be looked at yet.
--
-- What was lost goes to the waiting set, whatever its state: there it is found by its name, so that
-- it cannot be put back twice, and lanes stay short while very many are looked for in them.
local function judge(keys, argv)
  local p, mend = keys[1], argv[1] == '1'
  local reply, looked, lost = {}, 0, {}
  local now = math.floor(time() / 1000)
  local wanted, known = nil, {}
  if #argv > 3 + 5 * FEW then
    wanted = {}
    local records = {}
    for i = 4, #argv, 5 do records[#records + 1] = p .. 'd:' .. argv[i] .. Z .. argv[i + 1] end
    records = mget(records)
    for n = 1, #records do
      local i = 4 + (n - 1) * 5
      wanted['-' .. argv[i + 1]] = true
      wanted[argv[i + 3]] = true
      if records[n] then wanted[string.sub(records[n], 1, 16) .. argv[i + 1]] = true end
    end
  end
  for i = 4, #argv, 5 do
    if looked > LOOKS then break end
    local tenant, id, seen, entry = argv[i], argv[i + 1], argv[i + 2], argv[i + 3]
    local member = tenant .. Z .. id
    local value = redis.call('GET', p .. 'd:' .. member)
    local state, endpoint = open(value)
    local verdict, name = '-', nil
    if state ~= nil then
      local forms = { '-' .. id }
      if value then forms[2] = string.sub(value, 1, 16) .. id end
      if entry ~= '' and entry ~= forms[1] and entry ~= forms[2] then forms[#forms + 1] = entry end
      local leased = redis.call('ZSCORE', p .. 'l', member)
      local home, other, more, stands
      if state then
        home, more = places_of(p, tenant, id, endpoint, forms, wanted, known)
        looked = looked + more
        stands, name = standing(p, tenant, endpoint, id, value)
      end
      if seen ~= '' and seen ~= endpoint then
        other, more = places_of(p, tenant, id, seen, forms, wanted, known)
        looked = looked + more
      end
      local there = home and home.total + home.waits or 0
      local behind = stands == 'behind' and 1 or 0
      local turn = name and p .. 'g:' .. name
      local astray = other and other.total + other.waits or 0
      if not state then
        if leased or astray > 0 then
          verdict = 'S'
          if mend and leased then redis.call('ZREM', p .. 'l', member) end
        end
      elseif not leased and there + behind == 0 then
        verdict = 'L'
        if mend and stands == 'out' then
          redis.call('ZADD', turn, string.sub(value, 1, 16), id)
        elseif mend then
          lost[#lost + 1] = num(math.max(now + tonumber(argv[3]), tonumber(argv[i + 4])))
          lost[#lost + 1] = home.waiting
        end
      elseif (leased and 1 or 0) + there + astray + behind > 1 then
        verdict = 'D'
      elseif stands == 'out' then
        verdict = 'O'
        if mend then
          local first = redis.call('ZRANGE', turn, 0, 0, 'WITHSCORES')
          if leased or not first[2] or tonumber(first[2]) ~= 0 then
            redis.call('ZADD', turn, 0, id)
          else
            cleared(p, home, false, known)
            redis.call('ZADD', turn, string.sub(value, 1, 16), id)
          end
        end
      end
      if mend and verdict ~= '-' then
        if home and verdict == 'D' and (leased or there > 1 or behind > 0) then
          cleared(p, home, not leased and behind == 0 and home.total > 0, known)
          -- What is leased may just be sent: it is its turn by now.
          if leased and turn then redis.call('ZADD', turn, 0, id) end
          if stands == 'out' and not leased then redis.call('ZADD', turn, string.sub(value, 1, 16), id) end
        end
        if other then cleared(p, other, false, known) end
      end
    end
    reply[#reply + 1] = name and verdict .. name or verdict
  end
  if #lost > 0 then
    many('ZADD', p .. 'w', lost, 2)
    if argv[2] ~= '' then redis.call('PUBLISH', argv[2], p) end
  end
  return reply
end

-- ARGV: mend, channel, me, then names of sequences. Has it be the turn of one delivery in each. Reply: the names
-- of those in which it was nobody's turn, or that of one without an open record, or that of several.
local function check_sequences(keys, argv)
  local p, mend, reply = keys[1], argv[1] == '1', {}
  local now = time()
  local queues, waiting, quiet = {}, {}, is_quiet(p)
  for i = 4, #argv do
    local name = argv[i]
    local tenant, endpoint, key = split(name)
    local turn, firsts, strays = p .. 'g:' .. name, {}, {}
    local ids = redis.call('ZRANGE', turn, '-inf', 0, 'BYSCORE', 'LIMIT', 0, 100)
    local begun = false
    for n = 1, #ids do
      local member = tenant .. Z .. ids[n]
      local value = redis.call('GET', p .. 'd:' .. member)
      local kind, policy, of, named, _ = nil, nil, nil, nil, nil
      if value then
        kind, _, of = facts(value)
        if kind then policy, _, named = sequence(value) end
      end
      local belongs = policy and of == endpoint and named == key
      if value and not kind then
        -- It cannot be read, so it has its turn.
        begun = true
        firsts[#firsts + 1] = { id = ids[n], begun = true }
      elseif belongs and (kind == 'p' or kind == 'f' or (kind == 'x' and policy == 'b')) then
        local here = kind == 'x' or redis.call('ZSCORE', p .. 'l', member)
        begun = begun or here
        firsts[#firsts + 1] = { id = ids[n], begun = here, value = value }
      else
        strays[#strays + 1] = ids[n]
      end
    end
    local stalled = #firsts == 0 and redis.call('EXISTS', turn) == 1
    if stalled or #strays > 0 or #firsts > 1 then
      reply[#reply + 1] = name
      if mend then
        many('ZREM', turn, strays)
        -- What is leased or blocks keeps its turn; of those that nobody has begun, the one made first.
        table.sort(firsts, function(a, b) return (a.value or '') < (b.value or '') end)
        for n = 1, #firsts do
          local first = firsts[n]
          if not first.begun and (begun or n > 1) then
            local stamp = string.sub(first.value, 1, 16)
            local forms = { '-' .. first.id, stamp .. first.id }
            cleared(p, places_of(p, tenant, first.id, endpoint, forms), false)
            redis.call('ZADD', turn, stamp, first.id)
          end
        end
        advance(p, { [name] = true }, now, queues, waiting)
      end
    end
  end
  if mend and #reply > 0 then
    queue(p, queues, stamps(p, now, 1), 'RPUSH')
    delay(p, argv[2], waiting)
    wake(p, argv[2], argv[3], quiet)
  end
  return reply
end

-- ARGV: mend, name of a sequence, then ids in it. Reply: how many wait for their turn, then those that do
-- are not in the place of an open record of it.
local function check_behind(keys, argv)
  local p, name = keys[1], argv[2]
  local tenant, endpoint, key = split(name)
  local turn, ids, records = p .. 'g:' .. name, {}, {}
  for i = 3, #argv do
    ids[i - 2] = argv[i]
    records[i - 2] = p .. 'd:' .. tenant .. Z .. argv[i]
  end
  records = mget(records)
  local scores, reply, count = zmscore(turn, ids), {}, 0
  local strays, moved = {}, {}
  for i = 1, #ids do
    local state, of = open(records[i])
    if scores[i] and tonumber(scores[i]) ~= 0 and state ~= nil then
      count = count + 1
      local policy, _, named = nil, nil, nil
      if state then policy, _, named = sequence(records[i]) end
      if not policy or of ~= endpoint or named ~= key then
        strays[#strays + 1] = ids[i]
        reply[#reply + 1] = ids[i]
      elseif tonumber(scores[i]) ~= tonumber(string.sub(records[i], 1, 16)) then
        moved[#moved + 1] = string.sub(records[i], 1, 16)
        moved[#moved + 1] = ids[i]
        reply[#reply + 1] = ids[i]
      end
    end
  end
  if argv[1] == '1' then
    many('ZREM', turn, strays)
    many('ZADD', turn, moved, 2)
  end
  table.insert(reply, 1, count)
  return reply
end

-- ARGV: tenant, id, event, record as read, record of a dead letter, end of its line in f:. For an open
-- delivery whose event is gone: nothing can be sent, so it leaves the queue and is told. Reply: 1, or 0
-- when something has changed.
local function bury(keys, argv)
  local p, tenant, id = keys[1], argv[1], argv[2]
  local member, stamp = tenant .. Z .. id, string.sub(argv[4], 1, 16)
  local state, endpoint = open(argv[4])
  if not state or redis.call('GET', p .. 'd:' .. member) ~= argv[4] then return 0 end
  if redis.call('EXISTS', p .. 'e:' .. tenant .. Z .. argv[3]) == 1 then return 0 end
  cleared(p, places_of(p, tenant, id, endpoint, { '-' .. id, stamp .. id }), false)
  if redis.call('ZREM', p .. 'l', member) == 1 then
    landed(p, { [tenant .. Z .. endpoint] = 1 }, function() return stamps(p, time(), 1) end)
  end
  redis.call('SET', p .. 'd:' .. member, argv[5])
  redis.call('ZREM', p .. 'o:' .. tenant, id)
  redis.call('ZADD', p .. 'x:' .. tenant, stamp, id)
  redis.call('RPUSH', p .. 'f:' .. tenant, num(math.floor(time() / 1000)) .. argv[6])
  redis.call('HINCRBY', p .. 'm', tenant, 1)
  redis.call('HINCRBY', p .. 'k', 'o', -1)
  redis.call('HINCRBY', p .. 'k', 'x', 1)
  -- What cannot be sent blocks nothing.
  local _, name = standing(p, tenant, endpoint, id, argv[4])
  if name then
    local queues, waiting, now = {}, {}, time()
    redis.call('ZREM', p .. 'g:' .. name, id)
    advance(p, { [name] = true }, now, queues, waiting)
    queue(p, queues, stamps(p, now, 1), 'RPUSH')
    delay(p, '', waiting)
  end
  return 1
end

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

redis.register_function('@_check_lanes', check_lanes)
redis.register_function('@_check_entries', check_entries)
redis.register_function('@_check_members', check_members)
redis.register_function('@_check_records', check_records)
redis.register_function('@_check_index', check_index)
redis.register_function('@_check_line', check_line)
redis.register_function('@_check_finished', check_finished)
redis.register_function('@_count_finished', count_finished)
redis.register_function('@_relist', relist)
redis.register_function('@_relisted', relisted)
redis.register_function('@_judge', judge)
redis.register_function('@_check_sequences', check_sequences)
redis.register_function('@_check_behind', check_behind)
redis.register_function('@_bury', bury)
redis.register_function('@_check_flights', check_flights)
redis.register_function('@_check_counters', check_counters)
