local ENTRY = 64        -- deliveries in one entry of the stream of all

-- What the head of events says that go the same way: flags, tenant, and of each delivery \0 and its endpoint.
-- The flags are 1 if they extend an event that may be there, and 2 more if any delivery is scheduled or in a
-- sequence.
local function way(p, head)
  local parts, lanes = fields(head, math.huge), {}
  local flags, tenant = tonumber(string.sub(parts[1], 1, 1)), string.sub(parts[1], 2)
  for i = 2, #parts do lanes[i - 1] = tenant .. Z .. parts[i] end
  return {
    tenant = tenant, lanes = lanes,
    extends = flags % 2 == 1, plain = flags < 2, step = flags < 2 and 2 or 4,
    -- Where in the key of a record its delivery's id begins.
    id = #p + #tenant + 4,
  }
end

-- The keys of all events and records that a call names in its first `n` arguments.
local function named(p, argv, n)
  local wanted, ways = {}, {}
  local i = 3
  while i <= n do
    local head = argv[i]
    ways[head] = ways[head] or way(p, head)
    local to = ways[head]
    wanted[#wanted + 1] = argv[i + 1]
    i = i + 3
    for _ = 1, #to.lanes do
      wanted[#wanted + 1] = argv[i]
      i = i + to.step
    end
  end
  return wanted
end

-- What is to be written of a call's events, in its first `n` arguments, if the keys in `taken` exist, which are
-- then those in it too; with stamps from `first` on. `doubtful` is whether that is more than what is new.
local function draw_up(p, argv, n, first, now, taken)
  local made = {
    stamp = first, created = {}, sets = {}, more = {}, entries = {}, doubtful = false,
    queues = {}, sequences = {}, waiting = {},
  }
  local sets, queues, waiting, ways = made.sets, made.queues, made.waiting, {}
  local stamp, run = first, nil
  local i = 3
  while i <= n do
    local to, event, packed = ways[argv[i]], argv[i + 1], argv[i + 2]
    if not to then
      to = way(p, argv[i])
      ways[argv[i]] = to
    end
    local lanes, step = to.lanes, to.step
    local known, created = taken[event], 0
    i = i + 3
    if to.extends or #lanes == 0 then made.doubtful = true end
    if known and not to.extends then
      created = -1
    else
      for n = 1, #lanes do
        local j = i + (n - 1) * step
        local key = argv[j]
        if not taken[key] then
          taken[key] = true
          local text, id, lane = stamp_text(stamp), string.sub(key, to.id), lanes[n]
          stamp = stamp + 1
          created = created + 1
          sets[#sets + 1] = key
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
        sets[#sets + 1] = event
        sets[#sets + 1] = packed
        more = created - 1
      end
      if more > 0 then
        local shared = p .. 'c:' .. string.sub(event, #p + 3)
        made.more[shared] = (made.more[shared] or 0) + more
      end
    end
    made.created[#made.created + 1] = created
    i = i + #lanes * step
  end
  made.stamp = stamp
  return made
end

-- ARGV: channel, me, then per event: its head (see `way`), its key, packed event, and per delivery: its key, its
-- record after the stamp, and if any delivery is scheduled or in a sequence when it is due, in ms, and = with the
-- key of its sequence, or nothing for either. Events of one tenant are best side by side. At last 0, or what the
-- host leases by the same step if tenants stand before all that had a turn because of it: as in `lease` the fence
-- that it heard of, most for an endpoint that gets some, most per endpoint, duration, most. Reply: the first stamp,
-- then per event the number created (their stamps follow one another), or -1 for a duplicate; how many tenants
-- stand before all that had a turn because of it; and the reply of `lease`, if there was one.
local function enqueue(keys, argv)
  local p = keys[1]
  local now = time()
  local first = next_stamp(redis.call('GET', p .. 'u'), now)
  -- As a rule all is new, and nothing need be asked before.
  local most = argv[#argv]
  local n = #argv - (most == '0' and 1 or 5)
  local made = draw_up(p, argv, n, first, now, {})
  local sets = #made.sets
  if made.doubtful or sets > 2 * CHUNK or (sets > 0 and redis.call('MSETNX', unpack(made.sets)) == 0) then
    made = draw_up(p, argv, n, first, now, existing(named(p, argv, n)))
    plain('MSET', made.sets)
  end
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
