local ENTRY = 64        -- deliveries in one entry of the stream of all
local DAY = 86400000    -- in ms: so long it is known that there may be events without a record

-- What the head of events says that go the same way: flags, tenant, and of each delivery \0 and its endpoint.
-- The flags are 1 if they extend an event that may be there, 2 more if any delivery is scheduled or in a
-- sequence, and 4 more if the events are written beside the call.
local function way(p, head)
  local parts, lanes = fields(head, math.huge), {}
  local flags, tenant = tonumber(string.sub(parts[1], 1, 1)), string.sub(parts[1], 2)
  for i = 2, #parts do lanes[i - 1] = tenant .. Z .. parts[i] end
  local special = flags % 4 >= 2
  return {
    tenant = tenant, lanes = lanes,
    extends = flags % 2 == 1, plain = not special, step = special and 4 or 2, beside = flags >= 4,
    -- Where in the key of a record its delivery's id begins.
    id = #p + #tenant + 4,
  }
end

-- Calls `each` with every event that a call names in its first `n` arguments: which way it goes, the place of its
-- key, and that of its first delivery. What is written beside is the first of its name in a call.
local function each_event(p, argv, n, each)
  local ways, to = {}, nil
  local i = 4
  while i <= n do
    local head = argv[i]
    -- Without one it goes the way of the event before it.
    if head ~= '' then
      to = ways[head]
      if not to then
        to = way(p, head)
        ways[head] = to
      end
    end
    local first = i + (to.beside and 2 or 3)
    each(to, i + 1, first)
    i = first + #to.lanes * to.step
  end
end

-- Which keys of events and records that a call names in its first `n` arguments were there before it. `left` is the
-- token that is there, if one is: events that were written beside its call may be without a record. It says 0 of those
-- of which the call names none that is there: they may be such ones. If it is the token of the call that this one
-- repeats they are, for nothing of that was there before.
local function there_before(p, argv, n, left, token)
  local wanted, new = {}, {}
  each_event(p, argv, n, function(to, key, first)
    if to.beside then new[argv[key]] = true end
    if not new[argv[key]] then wanted[#wanted + 1] = argv[key] end
    for l = 1, #to.lanes do wanted[#wanted + 1] = argv[first + (l - 1) * to.step] end
  end)
  local taken = existing(wanted)
  if not left then return taken end
  local recorded = {}
  each_event(p, argv, n, function(to, key, first)
    for l = 1, #to.lanes do
      if taken[argv[first + (l - 1) * to.step]] then recorded[argv[key]] = true end
    end
  end)
  each_event(p, argv, n, function(to, key)
    local event = argv[key]
    if taken[event] and not to.extends and not recorded[event] then taken[event] = left ~= token and 0 or nil end
  end)
  return taken
end

-- What is to be written of a call's events, in its first `n` arguments, if the keys in `taken` exist, which are
-- then those in it too; with stamps from `first` on. `doubtful` is whether that is more than what is new, and
-- `unused` names events that are written already and have no new delivery.
local function draw_up(p, argv, n, first, now, taken)
  local made = {
    stamp = first, created = {}, sets = {}, more = {}, entries = {}, doubtful = false, unused = {},
    queues = {}, sequences = {}, waiting = {},
  }
  local sets, queues, waiting = made.sets, made.queues, made.waiting
  local stamp, run = first, nil
  each_event(p, argv, n, function(to, key, i)
    local lanes, step, event = to.lanes, to.step, argv[key]
    local known, created = not to.beside and taken[event], 0
    if to.extends or #lanes == 0 then made.doubtful = true end
    -- One of which it is not sure that it is known is extended: neither it nor what others wait for is lost.
    if known and known ~= 0 and not to.extends then
      created = -1
    else
      for l = 1, #lanes do
        local j = i + (l - 1) * step
        local record = argv[j]
        if not taken[record] then
          taken[record] = true
          local text, id, lane = stamp_text(stamp), string.sub(record, to.id), lanes[l]
          stamp = stamp + 1
          created = created + 1
          sets[#sets + 1] = record
          sets[#sets + 1] = text .. argv[j + 1]
          if to.plain then
            add(queues, lane, text .. id)
          elseif argv[j + 3] ~= '' then
            add(made.sequences, lane .. Z .. string.sub(argv[j + 3], 2), text, id)
          elseif argv[j + 2] ~= '' and tonumber(argv[j + 2]) * 1000 > now then
            waiting[#waiting + 1] = argv[j + 2]
            waiting[#waiting + 1] = lane .. Z .. id
          else
            -- Its time is past, whatever the host's clock said.
            add(queues, lane, text .. id)
          end
          if not run or run.tenant ~= to.tenant or #run.ids == ENTRY then
            run = { tenant = to.tenant, stamp = text, ids = {} }
            made.entries[#made.entries + 1] = run
          end
          run.ids[#run.ids + 1] = id
        end
      end
      local more = created
      if created > 0 and not known then
        taken[event] = true
        if not to.beside then
          sets[#sets + 1] = event
          sets[#sets + 1] = argv[key + 1]
        end
        more = created - 1
      elseif known == 0 then
        taken[event] = true
      elseif to.beside then
        made.unused[#made.unused + 1] = event
      end
      if more > 0 then
        local shared = p .. 'c:' .. string.sub(event, #p + 3)
        made.more[shared] = (made.more[shared] or 0) + more
      end
    end
    made.created[#made.created + 1] = created
  end)
  made.stamp = stamp
  return made
end

-- A call's events may be written beside it, by an MSETNX before it in the same transaction: to pass a string through
-- Lua costs Redis as much as all else that is done with it. That command writes a token of its own under E, too. So
-- it writes nothing while E is there, the call does nothing if the token is not there, because one of the events
-- was, and E stays if the call does not come to its end: there may be events then of which there is no record.
-- Returns whether the call is to do nothing.
local function is_refused(p, token)
  if redis.call('GET', p .. 'E') == token then return false end
  -- Whoever pushed such an event was not told that it is kept, and pushes it again.
  redis.call('PEXPIRE', p .. 'E', DAY, 'NX')
  return true
end

-- ARGV: channel, me, then = and the token if events are written beside this call, - and the token that they were to
-- be written with if this repeats such a call, or nothing; then per event: its head (see `way`), or nothing for that
-- of the one before, its key, packed event unless it is written beside, and per delivery: its key, its record after
-- the stamp, and if any delivery is scheduled or in a sequence when it is due, in ms, and = with the
-- key of its sequence, or nothing for either. Events of one tenant are best side by side. At last 0, or what the
-- host leases by the same step if tenants stand before all that had a turn because of it: as in `lease` the fence
-- that it heard of, most for an endpoint that gets some, most per endpoint, duration, most. Reply: the first stamp,
-- or nothing if the call is to be repeated with the events in it;
-- then per event the number created (their stamps follow one another), or -1 for a duplicate; how many tenants
-- stand before all that had a turn because of it; and the reply of `lease`, if there was one.
local function enqueue(keys, argv)
  local p, sign, token = keys[1], string.sub(argv[3], 1, 1), string.sub(argv[3], 2)
  if sign == '=' and is_refused(p, token) then return { '' } end
  local now = time()
  local first = next_stamp(redis.call('GET', p .. 'u'), now)
  -- As a rule all is new, and nothing need be asked before.
  local most = argv[#argv]
  local n = #argv - (most == '0' and 1 or 5)
  local made = draw_up(p, argv, n, first, now, {})
  local sets = #made.sets
  if made.doubtful or sets > 2 * CHUNK or (sets > 0 and redis.call('MSETNX', unpack(made.sets)) == 0) then
    local left = sign ~= '=' and redis.call('GET', p .. 'E')
    made = draw_up(p, argv, n, first, now, there_before(p, argv, n, left, token))
    plain('DEL', made.unused)
    plain('MSET', made.sets)
  end
  if sign ~= '' and redis.call('GET', p .. 'E') == token then redis.call('DEL', p .. 'E') end
  local reply, created = { num(first) }, made.created
  for i = 1, #created do reply[i + 1] = created[i] end
  if made.stamp == first then
    reply[#reply + 1] = 0
    return reply
  end
  local quiet = is_quiet(p)
  stamped(p, made.stamp - 1)
  for key, more in pairs(made.more) do redis.call('INCRBY', key, more) end
  local tenants, names = {}, {}
  for i = 1, #made.entries do
    local entry = made.entries[i]
    redis.call('XADD', p .. 'i:' .. entry.tenant, entry.stamp .. '-0', 'd', table.concat(entry.ids, Z))
    if not tenants[entry.tenant] then
      tenants[entry.tenant] = true
      names[#names + 1] = entry.tenant
    end
  end
  many('SADD', p .. 'T', names)
  redis.call('HINCRBY', p .. 'k', 'o', num(made.stamp - first))
  for name, members in pairs(made.sequences) do many('ZADD', p .. 'g:' .. name, members, 2) end
  advance(p, made.sequences, now, made.queues, made.waiting)
  local before = queue(p, made.queues, first, 'RPUSH')
  reply[#reply + 1] = before
  delay(p, argv[1], made.waiting)
  if before > 0 and most ~= '0' then
    local leased = lease(keys, { argv[1], argv[2], most, argv[n + 4], argv[n + 3], '0', argv[n + 2], argv[n + 1] })
    for i = 1, #leased do reply[#reply + 1] = leased[i] end
  end
  wake(p, argv[1], argv[2], quiet)
  return reply
end

-- ARGV: per event <tenant> \0 <event>. Reply: 1 or 0 for each.
local function known(keys, argv)
  local reply = {}
  for i = 1, #argv do
    reply[i] = redis.call('EXISTS', keys[1] .. 'e:' .. argv[i])
  end
  return reply
end

redis.register_function('@_enqueue', enqueue)
redis.register_function('@_known', known)
