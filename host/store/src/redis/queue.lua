-- The queue of wasmhook as server-side functions. Each call is one atomic step on one shard.
--
-- KEYS[1] is the shard's prefix, such as `{wasmhook:3}:`; every other key begins with it, so that
-- all keys of a call lie in one slot of a cluster. ARGV and replies are flat. What a call needs of
-- keys and members is made by the client where it can be: building strings is most of what a
-- function costs.
--
--   d:<tenant>\0<delivery>   record: 16 digits creation stamp, state (p, f, s or x), event \0
--                            endpoint \0 attempt \0 sequence \0 packed by the client. The sequence is
--                            empty, or s or b (whether a dead letter is skipped or blocks), what the
--                            client adds, a colon, when it is due in ms or nothing, a colon, and its key
--   e:<tenant>\0<event>      the event, packed by the client
--   c:<tenant>\0<event>      how many deliveries beyond one share the event; absent for an only one
--   q:<lane>                 lane: list of due entries. A lane is <tenant> \0 <endpoint>, or that and
--                            \0 for what is due again, so that first attempts never queue behind it
--   r:<tenant>               ring of the tenant's lanes that can be served, by last turn
--   t                        ring of tenants that can be served, by last turn; before all that had one, those
--                            that come with new work. One that has run out of work while others wait
--                            keeps its place until its turn comes again, or it would be new each time it has
--                            some again
--   D                        hash: tenant -> how much it may still have before the others until then, and, while
--                            it stands before them, a colon and the place that it keeps
--   s                        tenants with new work that had nothing due, and had all that they may have before
--                            the others: calls for new work serve them out of turn, by when it came
--   b                        set of lanes that left the ring because their endpoint was at its cap
--   n                        hash: <tenant> \0 <endpoint> -> deliveries in flight
--   g:<tenant>\0<endpoint>\0<key>
--                            sequence: ids of deliveries that go one after the other, by creation stamp.
--                            The one whose turn it is has the score 0, and it alone is in a lane, waiting
--                            or leased; or it is a dead letter that blocks. It leaves when it is finished
--   h                        hash: tenant -> weight, a colon, and most deliveries in flight or nothing; for
--                            those that have a quota, and absent while none has
--   C                        hash: tenant -> how much is left of its turn, if it is a weighty one that got only
--                            a part of it; it keeps its place in the ring then
--   N                        hash: tenant -> deliveries in flight, for those that have a cap
--   B                        set of tenants that left the ring because they were at their cap
--   w                        waiting lane members by the time they are due, in ms
--   l                        leased members by the fence, which is also the end of the lease, in us
--   U                        the last fence of each track, see `fence_after`
--   H:<host>                 the fence of the last call that leased something to a host, while that lasts; with
--                            a + for calls for new work
--   i:<tenant>               stream of all deliveries in the order of their making: several in an entry,
--                            whose stamps follow one another from the entry's own number on
--   I:<tenant>               the same while a repair makes it anew
--   j                        hash: tenant -> where clearing its stream of removed deliveries goes on
--   o:<tenant>               open ids that failed before, by creation stamp
--   x:<tenant>               dead-letter ids by creation stamp
--   f:<tenant>               finished ids in order of finishing: <ms> \0 <attempt> \0 <delivery>. A dead
--                            letter that blocks a sequence is in it, and in m, when it does no longer
--   m                        hash: tenant -> how many are finished; a line of f: may be of one that was
--                            replayed since
--   k                        hash: how many are open (o), succeeded (s) and dead letters (x)
--   u                        the last stamp given out
--   T                        set of tenants that have deliveries
--   V                        in shard 0 only: set while no host need check the queue again (v was for hosts
--                            of layout 1, which do not know sequences)
--
-- A member is <tenant> \0 <delivery>, a lane member <tenant> \0 <endpoint> \0 <delivery>. No id holds
-- a zero byte. A stamp is a time in microseconds, made larger than every stamp before it: unique in
-- the shard. An entry of a lane is the delivery's stamp and id while nobody ever leased it, so that
-- the host that enqueued it needs not read it again; afterwards it is `-` and the id.

local CHUNK = 2000      -- arguments per variadic command; Lua's stack holds some 8000
local PROMOTE = 1000    -- waiting deliveries made due per lease call
local RECLAIM = 1000    -- expired leases put back per lease call
local SCAN = 256        -- tenants and lanes looked at in one pass of a lease
local ENTRY = 64        -- deliveries in one entry of the stream of all
local TURN = 8          -- deliveries of a turn where many tenants wait and much is asked for
local MUCH = 32         -- so much: who asks for less gets one of each
local NEW = 1e15        -- some 30 years in us: puts a tenant before all that had a turn
local SOME = 16         -- members that are worth making a table of a list, see `hset`
-- A member that is longer than those of a list may be, and that no name can be.
local LONG = '\0------------------------------------------------------------------------'
local FEW = 16          -- who has no more in flight for an endpoint may be served out of turn
local TRACKS = 8        -- lengths of leases that hosts may ask for side by side, each to the microsecond

local Z = '\0'

local function num(value)
  return string.format('%.0f', value)
end

-- A stamp as text. Those that follow one another differ in their last digits, and printing a number is dear.
local LAST = {}
for i = 0, 999 do LAST[i] = (i < 10 and '00' or i < 100 and '0' or '') .. i end
local thousands, beginning = nil, nil
local function stamp_text(stamp)
  local last = stamp % 1000
  if stamp - last ~= thousands then
    thousands = stamp - last
    beginning = num(thousands / 1000)
  end
  return beginning .. LAST[last]
end

-- The server's time in microseconds.
local function time()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

-- The next stamp that may be given out; `said` is what u says.
local function next_stamp(said, now)
  local last = tonumber(said or '0')
  return last >= now and last + 1 or now
end

local function stamped(p, last)
  redis.call('SET', p .. 'u', num(last))
end

-- Gives out `count` stamps and returns the first.
local function stamps(p, now, count)
  local first = next_stamp(redis.call('GET', p .. 'u'), now)
  stamped(p, first + count - 1)
  return first
end

-- The fence of a lease that is to last until `ends`: some microseconds later, and never given out again,
-- though hosts ask for leases of different lengths. Fences of a track only grow, and no two tracks share one:
-- the first track that is not past `ends` yet gives it, so there are as many in use as there are lengths. When
-- all are past it, as with more lengths than tracks, the lease lasts longer than was asked.
-- `said` is what U says; returns the fence and what U is to say.
local function fence_after(said, ends)
  local last = {}
  for fence in string.gmatch(said or '', '%d+') do last[#last + 1] = tonumber(fence) end
  local track, fence = 1, ends + TRACKS - ends % TRACKS
  while track < TRACKS and (last[track] or 0) >= fence do
    track = track + 1
    fence = fence + 1
  end
  last[track] = math.max(fence, (last[track] or 0) + TRACKS)
  fence = last[track]
  for i = 1, #last do last[i] = num(last[i]) end
  return fence, table.concat(last, ' ')
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

-- The same for commands without a key before the arguments.
local function plain(command, args)
  local n = #args
  for i = 1, n, CHUNK do
    redis.call(command, unpack(args, i, math.min(i + CHUNK - 1, n)))
  end
end

local function mget(keys)
  local n = #keys
  if n == 0 then return {} end
  if n <= CHUNK then return redis.call('MGET', unpack(keys)) end
  local all = {}
  for i = 1, n, CHUNK do
    local part = redis.call('MGET', unpack(keys, i, math.min(i + CHUNK - 1, n)))
    for j = 1, #part do all[i + j - 1] = part[j] end
  end
  return all
end

-- Asks what a key says of each of these names (HMGET, SMISMEMBER, ZMSCORE).
local function ask(command, key, names)
  local n = #names
  if n == 0 then return {} end
  if n <= CHUNK then return redis.call(command, key, unpack(names)) end
  local all = {}
  for i = 1, n, CHUNK do
    local part = redis.call(command, key, unpack(names, i, math.min(i + CHUNK - 1, n)))
    for j = 1, #part do all[i + j - 1] = part[j] end
  end
  return all
end

local function zmscore(key, members)
  return ask('ZMSCORE', key, members)
end

-- Redis keeps a small hash or sorted set as a list, which it goes through for each member that it adds, asks for and
-- removes. A long member makes a table or a tree of it, and it stays one until nothing is left in it. These two write
-- members that way where there are enough of them to be worth two calls more; `args` are as for HSET and ZADD.
local function hset(key, args)
  local some = #args >= 2 * SOME
  if some then redis.call('HSET', key, LONG, 0) end
  many('HSET', key, args, 2)
  if some then redis.call('HDEL', key, LONG) end
end

local function zadd(key, args)
  local some = #args >= 2 * SOME
  if some then redis.call('ZADD', key, 0, LONG) end
  many('ZADD', key, args, 2)
  if some then redis.call('ZREM', key, LONG) end
end

-- Adds `counts` (name -> how much, below zero to take away) to a hash of numbers, in which nothing stands at zero.
-- A call for each name would cost more than all the rest, and a small hash looks through all names for one.
local function change(key, counts)
  local names, set, gone = {}, {}, {}
  for name in pairs(counts) do names[#names + 1] = name end
  local had = ask('HMGET', key, names)
  for i = 1, #names do
    local now = (tonumber(had[i] or '0') or 0) + counts[names[i]]
    if now > 0 then
      set[#set + 1] = names[i]
      set[#set + 1] = now
    elseif had[i] then
      gone[#gone + 1] = names[i]
    end
  end
  hset(key, set)
  many('HDEL', key, gone)
end

-- Which of these keys exist, as a set. One question for all while none does, which is the rule.
local function existing(keys)
  local set, n = {}, #keys
  for i = 1, n, CHUNK do
    local last = math.min(i + CHUNK - 1, n)
    if redis.call('EXISTS', unpack(keys, i, last)) > 0 then
      for j = i, last do
        if redis.call('EXISTS', keys[j]) == 1 then set[keys[j]] = true end
      end
    end
  end
  return set
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

-- The parts of a text between zero bytes; the last is the rest from the part of number `most` on. A pattern would
-- cost ten times as much.
local function fields(text, most)
  local parts, start, cut = {}, 1, nil
  for i = 1, most do
    cut = i < most and string.find(text, Z, start, true) or nil
    parts[i] = string.sub(text, start, cut and cut - 1)
    if not cut then break end
    start = cut + 1
  end
  return parts
end

-- The three parts of a text that two zero bytes part.
local function split(text)
  local a = string.find(text, Z, 1, true)
  local b = string.find(text, Z, a + 1, true)
  return string.sub(text, 1, a - 1), string.sub(text, a + 1, b - 1), string.sub(text, b + 1)
end

-- State, event, endpoint and attempt of a record.
local function envelope(record)
  local a = string.find(record, Z, 18, true)
  local b = string.find(record, Z, a + 1, true)
  local c = string.find(record, Z, b + 1, true)
  return string.sub(record, 17, 17), string.sub(record, 18, a - 1), string.sub(record, a + 1, b - 1), string.sub(record, b + 1, c - 1)
end

-- What a record says of its sequence: s or b, when it is due in ms (or ''), the key; nothing if it has none.
local function sequence(record)
  local place = 18
  for _ = 1, 3 do place = string.find(record, Z, place, true) + 1 end
  local last = string.find(record, Z, place, true) - 1
  if last < place then return nil end
  return string.match(string.sub(record, place, last), '^([sb])%d*:(%d*):(.*)$')
end

-- Tells waiting hosts that there is work in this shard; `quiet` is whether nothing could be served
-- before. Who is awake leases until it gets less than it asked for, so one message per start of work
-- is enough. `me` lets the host that caused it pass the message over.
local function wake(p, channel, me, quiet)
  if quiet and channel ~= '' and redis.call('EXISTS', p .. 't') == 1 then
    redis.call('PUBLISH', channel, p .. me)
  end
end

local function is_quiet(p)
  return redis.call('EXISTS', p .. 't') == 0
end

-- Puts lanes into the rings at the end of the line, where they are not in them yet. The tenants of new work go
-- to the front: a few events must not wait for a round of all who have mountains of them. So do those that had
-- less than a turn in this round. Who had that, and had nothing due all the same, has less than others wait for,
-- and is to be served out of turn. Returns of how many new work is to be served.
local function ring(p, lanes, stamp, new)
  local turn = num(stamp)
  local tenants_turn = new and num(stamp - NEW) or turn
  local groups, tenants, came = {}, {}, {}
  for i = 1, #lanes do
    local cut = string.find(lanes[i], Z, 1, true)
    add(groups, string.sub(lanes[i], 1, cut - 1), turn, string.sub(lanes[i], cut + 1))
  end
  for tenant, args in pairs(groups) do
    local added = 0
    for i = 1, #args, CHUNK do
      added = added + redis.call('ZADD', p .. 'r:' .. tenant, 'NX', unpack(args, i, math.min(i + CHUNK - 1, #args)))
    end
    came[tenant] = added
    tenants[#tenants + 1] = tenants_turn
    tenants[#tenants + 1] = tenant
  end
  local first = 0
  for i = 1, #tenants, CHUNK do
    first = first + redis.call('ZADD', p .. 't', 'NX', unpack(tenants, i, math.min(i + CHUNK - 1, #tenants)))
  end
  if not new or first == #tenants / 2 then return first end
  local owing = redis.call('EXISTS', p .. 'D') == 1
  for i = 1, #tenants, 2 do
    local tenant = tenants[i + 1]
    local left = owing and redis.call('HGET', p .. 'D', tenant)
    if not left then
      local had_nothing = came[tenant] > 0 and redis.call('ZCARD', p .. 'r:' .. tenant) == came[tenant]
      if had_nothing and tonumber(redis.call('ZSCORE', p .. 't', tenant)) > stamp - NEW / 2 then
        first = first + redis.call('ZADD', p .. 's', 'NX', turn, tenant)
      end
    elseif not string.find(left, ':', 1, true) then
      redis.call('HSET', p .. 'D', tenant, left .. ':' .. num(tonumber(redis.call('ZSCORE', p .. 't', tenant))))
      redis.call('ZADD', p .. 't', 'XX', tenants_turn, tenant)
      first = first + 1
    end
  end
  return first
end

-- Pushes due entries to their lanes and the lanes into the rings. `queues` maps lane -> entries. What is put
-- before the others was in a lane already, and is not new. Returns as `ring` does.
local function queue(p, queues, stamp, command)
  local lanes = {}
  for lane, entries in pairs(queues) do
    many(command, p .. 'q:' .. lane, entries)
    lanes[#lanes + 1] = lane
  end
  return ring(p, lanes, stamp, command == 'RPUSH')
end

-- Takes `counts` (<tenant> \0 <endpoint> -> how many) from what the tenants with a cap have in flight, and
-- puts those back into the ring that their cap kept out.
local function tenants_landed(p, counts, stamp_of)
  local totals, tenants = {}, {}
  for lane, count in pairs(counts) do
    local tenant = string.sub(lane, 1, string.find(lane, Z, 1, true) - 1)
    if not totals[tenant] then tenants[#tenants + 1] = tenant end
    totals[tenant] = (totals[tenant] or 0) + count
  end
  for i = 1, #tenants do
    local tenant = tenants[i]
    if redis.call('HGET', p .. 'N', tenant) then
      redis.call('HINCRBY', p .. 'N', tenant, -totals[tenant])
      if redis.call('SREM', p .. 'B', tenant) == 1 and redis.call('EXISTS', p .. 'r:' .. tenant) == 1 then
        redis.call('ZADD', p .. 't', 'NX', num(stamp_of()), tenant)
      end
    end
  end
end

-- Takes `counts` (<tenant> \0 <endpoint> -> how many) from what is in flight, and puts lanes back
-- into the ring that their endpoint's cap kept out.
local function landed(p, counts, stamp_of)
  if not next(counts) then return end
  local fewer = {}
  for lane, count in pairs(counts) do fewer[lane] = -count end
  change(p .. 'n', fewer)
  -- As a rule nobody is at a cap, and no tenant has a quota.
  local marks = redis.call('EXISTS', p .. 'b', p .. 'h')
  if marks == 0 then return end
  local lanes, free = {}, {}
  for lane in pairs(counts) do
    lanes[#lanes + 1] = lane
    lanes[#lanes + 1] = lane .. Z
  end
  local blocked = ask('SMISMEMBER', p .. 'b', lanes)
  for i = 1, #lanes do
    if blocked[i] == 1 then free[#free + 1] = lanes[i] end
  end
  if #free > 0 then
    many('SREM', p .. 'b', free)
    ring(p, free, stamp_of())
  end
  if marks == 2 or redis.call('EXISTS', p .. 'h') == 1 then tenants_landed(p, counts, stamp_of) end
end

-- Adds to the waiting set; `waiting` are times in ms and members in turn. A new head of the line is due
-- earlier than what hosts that wait know of.
local function delay(p, channel, waiting)
  if #waiting == 0 then return end
  local key = p .. 'w'
  local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  many('ZADD', key, waiting, 2)
  local new = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if channel ~= '' and (not head[2] or tonumber(new[2]) < tonumber(head[2])) then
    redis.call('PUBLISH', channel, p)
  end
end

-- Of each of these sequences (<lane> \0 <key> -> anything), lets the next one go where it is nobody's
-- turn: to `queues` or `waiting`. A member without an open record is dropped.
local function advance(p, sequences, now, queues, waiting)
  for name in pairs(sequences) do
    local key = p .. 'g:' .. name
    local tenant, endpoint = split(name)
    while true do
      local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
      if #head == 0 or tonumber(head[2]) == 0 then break end
      local id = head[1]
      local value = redis.call('GET', p .. 'd:' .. tenant .. Z .. id)
      local kind, attempt, due, _ = nil, nil, nil, nil
      if value then
        kind, _, _, attempt = envelope(value)
        _, due = sequence(value)
      end
      if kind == 'p' or kind == 'f' then
        local lane = tenant .. Z .. endpoint
        redis.call('ZADD', key, 0, id)
        if due and due ~= '' and tonumber(due) * 1000 > now then
          waiting[#waiting + 1] = due
          waiting[#waiting + 1] = lane .. Z .. id
        elseif attempt == '0' then
          add(queues, lane, string.sub(value, 1, 16) .. id)
        else
          add(queues, lane, '-' .. id)
        end
        break
      end
      redis.call('ZREM', key, id)
    end
  end
end

local lease

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

-- Makes waiting deliveries due whose time has come; returns when the next one comes, in us.
local function promote(p, now, stamp, channel, me)
  local key = p .. 'w'
  local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if #head == 0 then return nil end
  local ms = math.floor(now / 1000)
  if tonumber(head[2]) > ms then return tonumber(head[2]) * 1000 end
  local due = redis.call('ZRANGE', key, '-inf', num(ms), 'BYSCORE', 'LIMIT', 0, PROMOTE)
  local queues = {}
  for i = 1, #due do
    local tenant, endpoint, id = split(due[i])
    add(queues, tenant .. Z .. endpoint .. Z, '-' .. id)
  end
  many('ZREM', key, due)
  local quiet = is_quiet(p)
  queue(p, queues, stamp, 'RPUSH')
  -- There may be more than who asks can take.
  if #due > 1 then wake(p, channel, me, quiet) end
  head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return head[2] and tonumber(head[2]) * 1000
end

-- Ends leases and puts back what they hold, before what waits in the lane.
local function put_back(p, members, stamp, channel, me)
  local records = {}
  for i = 1, #members do records[i] = p .. 'd:' .. members[i] end
  records = mget(records)
  local queues, counts = {}, {}
  -- From the last to the first, because each goes to the front.
  for i = #members, 1, -1 do
    -- What has no record any more was evicted or deleted by hand: only repair can tell its lane.
    if records[i] then
      local cut = string.find(members[i], Z, 1, true)
      local _, _, endpoint = envelope(records[i])
      local lane = string.sub(members[i], 1, cut) .. endpoint
      add(queues, lane, '-' .. string.sub(members[i], cut + 1))
      counts[lane] = (counts[lane] or 0) + 1
    end
  end
  many('ZREM', p .. 'l', members)
  local quiet = is_quiet(p)
  landed(p, counts, function() return stamp end)
  queue(p, queues, stamp, 'LPUSH')
  -- There may be more than who asks can take: also what the endpoint's cap kept back.
  wake(p, channel, me, quiet)
end

-- Puts back what this host was leased and never heard of. `heard` is the fence of the last lease that it knows
-- of: it makes one call after the other, so what a later one leased was lost with the answer, or could not
-- be read.
-- `last` is the fence of the last that there was, which is kept under `key`.
local function put_back_unheard(p, key, last, heard, stamp, channel, me)
  if not last or last == heard then return end
  redis.call('DEL', key)
  local members = redis.call('ZRANGE', p .. 'l', last, last, 'BYSCORE')
  if #members > 0 then put_back(p, members, stamp, channel, me) end
end

-- Puts back what expired leases hold; returns the end of the next lease, in us.
local function reclaim(p, now, stamp, channel, me)
  local key = p .. 'l'
  local head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if #head == 0 then return nil end
  if tonumber(head[2]) > now then return tonumber(head[2]) end
  local expired = redis.call('ZRANGE', key, '-inf', num(now), 'BYSCORE', 'LIMIT', 0, RECLAIM)
  put_back(p, expired, stamp, channel, me)
  head = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return head[2] and tonumber(head[2])
end

-- Sends who had its turn to the end of a ring, in this order, and who got more than an even share behind them.
-- Each gets a stamp of its own, or those of one call would go by their names the next time.
local function behind(key, call, even, greedy)
  local args = {}
  for _, names in ipairs({ even, greedy }) do
    for i = 1, #names do
      args[#args + 1] = stamp_text(call.stamp)
      args[#args + 1] = names[i]
      call.stamp = call.stamp + 1
    end
  end
  if #args > 0 then redis.call('ZADD', key, 'XX', unpack(args)) end
end

-- Learns how many of these endpoints' deliveries are in flight (`fields` of n), where this call does not know yet.
local function learn_flying(call, fields)
  local flying, unknown = call.flying, {}
  for i = 1, #fields do
    if not flying[fields[i]] then unknown[#unknown + 1] = fields[i] end
  end
  if #unknown == 0 then return end
  local said = redis.call('HMGET', call.p .. 'n', unpack(unknown))
  for i = 1, #unknown do flying[unknown[i]] = tonumber(said[i] or '0') or 0 end
end

-- Takes up to `most` deliveries from a tenant's lane, and appends them to the call's reply and leases; `field` is
-- the lane's in n. Returns how many.
local function take(call, tenant, lane, field, most)
  local entries = redis.call('LPOP', call.p .. 'q:' .. tenant .. Z .. lane, most)
  if not entries then return 0 end
  local reply, members, fence = call.reply, call.members, call.fence
  local got, m, k, start = #entries, #reply + 3, #members, tenant .. Z
  local sub, byte = string.sub, string.byte
  reply[m - 2], reply[m - 1], reply[m] = tenant, sub(field, #start + 1), got
  for i = 1, got do
    local entry = entries[i]
    reply[m + i] = entry
    members[k + 1] = fence
    members[k + 2] = start .. sub(entry, byte(entry) == 45 and 2 or 17)
    k = k + 2
  end
  call.flying[field] = call.flying[field] + got
  call.taken = call.taken + got
  call.touched[field] = true
  return got
end

-- Takes up to `want` deliveries of one tenant from its lanes in turn, so that no endpoint has more than the call's
-- `light` in flight, whose cap is `cap`. Returns how many, and whether lanes are left in the ring.
local function serve(call, tenant, want)
  local p = call.p
  local key = p .. 'r:' .. tenant
  local limit = math.min(want, SCAN)
  -- One more than can be served, to know whether there are others.
  local lanes = redis.call('ZRANGE', key, 0, limit)
  local n = math.min(#lanes, limit)
  if n == 0 then return 0, false end
  local more = #lanes > n
  local fields = {}
  for i = 1, n do
    local lane = lanes[i]
    -- Both lanes of an endpoint count together.
    if string.byte(lane, -1) == 0 then lane = string.sub(lane, 1, -2) end
    fields[i] = tenant .. Z .. lane
  end
  learn_flying(call, fields)
  local gone, fair, greedy, blocked = {}, {}, {}, {}
  local taken, even = 0, math.floor(want / n)
  for i = 1, n do
    local flying = call.flying[fields[i]]
    local room = call.cap - flying
    local share = math.min(math.ceil((want - taken) / (n - i + 1)), room, call.light - flying)
    local got = share > 0 and take(call, tenant, lanes[i], fields[i], share) or 0
    taken = taken + got
    if room <= 0 or got == room then
      gone[#gone + 1] = lanes[i]
      blocked[#blocked + 1] = tenant .. Z .. lanes[i]
    elseif got < share or (got < TURN and redis.call('EXISTS', p .. 'q:' .. tenant .. Z .. lanes[i]) == 0) then
      -- Also who had just what was to be had, in less than a turn: it would not be new when it has some again.
      gone[#gone + 1] = lanes[i]
    elseif got > even then
      greedy[#greedy + 1] = lanes[i]
    elseif got > 0 then
      fair[#fair + 1] = lanes[i]
    end
  end
  if #blocked > 0 then redis.call('SADD', p .. 'b', unpack(blocked)) end
  if #gone == n and not more then
    call.emptied[#call.emptied + 1] = key
    return taken, false
  end
  if #gone > 0 then redis.call('ZREM', key, unpack(gone)) end
  -- One alone need not go behind itself: who comes later is behind it anyway.
  if n > 1 or more then behind(key, call, fair, greedy) end
  return taken, true
end

-- Of each of these tenants its weight, how many more it may have in flight (if it has a cap), what is left of
-- its turn (if it got a part of it); and the sum of the weights.
local function shares(p, tenants)
  local said = redis.call('HMGET', p .. 'h', unpack(tenants))
  local flying = redis.call('HMGET', p .. 'N', unpack(tenants))
  local left = redis.call('HMGET', p .. 'C', unpack(tenants))
  local weights, rooms, begun, total = {}, {}, {}, 0
  for i = 1, #tenants do
    local weight, cap = 1, nil
    if said[i] then
      weight, cap = string.match(said[i], '^(%d+):(%d*)$')
      weight, cap = tonumber(weight), tonumber(cap)
    end
    weights[i] = weight
    if cap then rooms[i] = math.max(0, cap - tonumber(flying[i] or '0')) end
    if left[i] then begun[i] = math.min(tonumber(left[i]), weight * TURN) end
    total = total + weight
  end
  return weights, rooms, begun, total
end

-- Forgets the rings that the call emptied.
local function drop_emptied(call)
  if #call.emptied == 0 then return end
  redis.call('DEL', unpack(call.emptied))
  call.emptied = {}
end

-- Serves who came with new work, had nothing due and had all that it may have before the others. It keeps its place
-- for what is left after that. Only calls for new work do this, whose places are few, and only for who has little
-- in flight, so what the others may lose by it is bounded.
local function serve_out_of_turn(call)
  local p = call.p
  local tenants = redis.call('ZRANGE', p .. 's', 0, math.min(call.want, SCAN) - 1)
  local n = #tenants
  if n == 0 then return end
  redis.call('ZREM', p .. 's', unpack(tenants))
  local weights, rooms, light = {}, {}, call.light
  if call.quotas then weights, rooms = shares(p, tenants) end
  call.light = math.min(light, FEW)
  for i = 1, n do
    local even = math.ceil((call.want - call.taken) / (n - i + 1))
    local most = math.min(even, (weights[i] or 1) * TURN, rooms[i] or even)
    if most > 0 then
      local got = serve(call, tenants[i], most)
      if rooms[i] then redis.call('HINCRBY', p .. 'N', tenants[i], got) end
    end
  end
  call.light = light
  drop_emptied(call)
end

-- The tenants whose turn is next, and what they may have before the others, if anybody may. Calls for new work
-- serve only those that stand before all that had a turn.
local function next_in_turn(call, limit)
  local p = call.p
  local tenants
  if call.new then
    tenants = redis.call('ZRANGE', p .. 't', '-inf', num(call.before), 'BYSCORE', 'LIMIT', 0, limit)
  else
    tenants = redis.call('ZRANGE', p .. 't', 0, limit - 1)
  end
  if #tenants == 0 or not call.owing then return tenants, {} end
  return tenants, redis.call('HMGET', p .. 'D', unpack(tenants))
end

-- How much a tenant's turn is. It goes by the tenant's weight; while there is enough for all it is as long as it
-- can be. `begun` is what is left of a turn of which it got a part.
local function turn_of(call, round, weight, begun)
  if round.crowded then return begun or weight * round.length end
  local share = weight * math.ceil((call.want - call.taken) / round.total)
  if share <= weight then return begun or weight end
  return share
end

-- Notes that a tenant had `got` of what it might have before the others though it had a turn (`rest`, while it
-- keeps `place`); `left` is whether it has more to deliver. It stays before them for that, or goes to its place.
local function keep_place(p, tenant, rest, place, got, left)
  rest = rest - got
  if left and got > 0 and rest > 0 then
    redis.call('HSET', p .. 'D', tenant, num(rest) .. ':' .. place)
    return
  end
  if left or rest <= 0 then
    redis.call('HDEL', p .. 'D', tenant)
  else
    redis.call('HSET', p .. 'D', tenant, num(rest))
  end
  redis.call('ZADD', p .. 't', 'XX', place, tenant)
end

-- Serves a tenant its turn and says where it goes then. `room` is how many more it may have in flight, if it has
-- a cap; `begun` as of `turn_of`; `owed` what D says of it.
local function serve_turn(call, round, tenant, weight, room, begun, owed)
  local p = call.p
  local share = turn_of(call, round, weight, begun)
  round.total = round.total - weight
  local rest, place = nil, nil
  if owed then
    rest, place = string.match(owed, '^(%d+):?(%d*)$')
    if place == '' then
      -- Its turn has come again.
      rest = nil
      round.spent[#round.spent + 1] = tenant
    else
      rest = tonumber(rest)
      share = math.min(share, rest)
    end
  end
  local most = math.min(share, call.want - call.taken)
  if room and room < most then most = room end
  if most <= 0 and room ~= 0 then return end
  local got, left = 0, true
  if most > 0 then
    got, left = serve(call, tenant, most)
    if room then redis.call('HINCRBY', p .. 'N', tenant, got) end
  end
  local goes_on = false
  if room and got >= room then
    round.full[#round.full + 1] = tenant
    round.gone[#round.gone + 1] = tenant
    if rest then redis.call('HDEL', p .. 'D', tenant) end
  elseif rest then
    keep_place(p, tenant, rest, place, got, left)
  elseif not left and (got == 0 or not round.crowded) then
    round.gone[#round.gone + 1] = tenant
  elseif got > 0 and got < share and call.taken >= call.want and weight > 1 then
    goes_on = true
    redis.call('HSET', p .. 'C', tenant, share - got)
  else
    if got > round.unit * weight then
      round.greedy[#round.greedy + 1] = tenant
    elseif got > 0 or call.new then
      round.fair[#round.fair + 1] = tenant
    end
    -- One more than a turn, or short turns would leave nothing.
    local over = weight * (round.length + 1) - got
    if not left and over > 0 then
      round.spare[#round.spare + 1] = tenant
      round.spare[#round.spare + 1] = over
    end
  end
  if begun and not goes_on then redis.call('HDEL', p .. 'C', tenant) end
end

-- Serves those whose turn is next, once each. Returns whether there were any.
local function serve_round(call)
  local p, want = call.p, call.want - call.taken
  -- A tenant costs as much as several deliveries do, so few are served at a time, and more of each.
  local length = want < MUCH and 1 or TURN
  local limit = math.min(math.ceil(want / length), SCAN)
  local tenants, owed = next_in_turn(call, limit)
  local n = #tenants
  if n == 0 then return false end
  local weights, rooms, begun, total = {}, {}, {}, n
  if call.quotas then weights, rooms, begun, total = shares(p, tenants) end
  -- Whether others wait who cannot have a turn now.
  local crowded = (call.new or n == limit) and redis.call('ZCARD', p .. 't') > n
  local round = {
    length = length, crowded = crowded, total = total,
    unit = crowded and length or math.floor(want / total),
    gone = {}, fair = {}, greedy = {}, full = {}, spent = {}, spare = {},
  }
  for i = 1, n do
    serve_turn(call, round, tenants[i], weights[i] or 1, rooms[i], begun[i], owed[i])
  end
  drop_emptied(call)
  if #round.full > 0 then redis.call('SADD', p .. 'B', unpack(round.full)) end
  if #round.gone > 0 then
    redis.call('ZREM', p .. 't', unpack(round.gone))
    redis.call('ZREM', p .. 's', unpack(round.gone))
  end
  if #round.spent > 0 then redis.call('HDEL', p .. 'D', unpack(round.spent)) end
  if #round.spare > 0 then
    hset(p .. 'D', round.spare)
    call.owing = true
  end
  behind(p .. 't', call, round.fair, round.greedy)
  return true
end

-- Writes down who holds what the call took, and how many of each endpoint's are in flight then.
local function hold(call, key, duration)
  zadd(call.p .. 'l', call.members)
  redis.call('SET', key, call.fence, 'PX', math.ceil(duration / 1000))
  local flying = {}
  for field in pairs(call.touched) do
    flying[#flying + 1] = field
    flying[#flying + 1] = call.flying[field]
  end
  hset(call.p .. 'n', flying)
end

-- ARGV: channel, me, most, duration in us, most per endpoint, whether to tell others (1 or 0) that more is
-- left than was asked for; to serve new work only: most in flight for an endpoint that gets some, or 0 to
-- serve all; and the fence of the last lease of this kind here that this host heard of (or empty). Reply: us
-- until there is more to do (-1: nothing waits; 0 also when new work was asked for and there is other), fence,
-- then groups of tenant, endpoint, number of entries, entries.
function lease(keys, argv)
  local p = keys[1]
  local channel, me = argv[1], argv[2]
  local want, duration, cap = tonumber(argv[3]), tonumber(argv[4]), tonumber(argv[5])
  local new = argv[7] ~= '0'
  local now = time()
  -- Calls for new work are made beside the others.
  local last_lease = p .. 'H:' .. (new and me .. '+' or me)
  local said = redis.call('MGET', p .. 'u', p .. 'U', last_lease)
  local stamp = next_stamp(said[1], now)
  local mine, tracks = fence_after(said[2], stamp + duration)
  -- A stamp for what is put back, and one for each turn that a lane or a tenant may have.
  redis.call('MSET', p .. 'u', num(stamp + 2 * want), p .. 'U', tracks)
  put_back_unheard(p, last_lease, said[3], argv[8], stamp, channel, me)
  local ends = reclaim(p, now, stamp, channel, me)
  local due = promote(p, now, stamp, channel, me)
  local marks = redis.call('EXISTS', p .. 'h', p .. 'D')
  local fence = num(mine)
  local call = {
    p = p, want = want, taken = 0, cap = cap, light = new and tonumber(argv[7]) or cap,
    new = new, before = now - NEW / 2,
    quotas = marks > 0 and redis.call('EXISTS', p .. 'h') == 1, owing = marks > 0,
    fence = fence, stamp = stamp + 1,
    reply = { -1, fence }, members = {}, flying = {}, touched = {}, emptied = {},
  }
  if new then serve_out_of_turn(call) end
  while call.taken < want and serve_round(call) do end
  -- Hosts that are idle hear only of the start of work, and this one may have its hands full.
  if argv[6] == '1' and call.taken >= want then wake(p, channel, me, true) end
  if call.taken > 0 then
    hold(call, last_lease, duration)
    if not ends or mine < ends then ends = mine end
  end
  local next_due = due
  if ends and (not next_due or ends < next_due) then next_due = ends end
  if next_due then call.reply[1] = math.max(0, math.ceil(next_due - now)) end
  if new and redis.call('EXISTS', p .. 't') == 1 then call.reply[1] = 0 end
  return call.reply
end

-- Which of these leases are in force. `members` and `fences` run alike; what is named twice counts
-- once. Returns a list of booleans and the members to remove.
local function in_force(p, members, fences)
  local scores = zmscore(p .. 'l', members)
  local valid, held, seen = {}, {}, {}
  for i = 1, #members do
    local member, score = members[i], scores[i]
    if score and not seen[member] and (score == fences[i] or tonumber(score) == tonumber(fences[i])) then
      valid[i] = true
      seen[member] = true
      held[#held + 1] = member
    end
  end
  return valid, held
end

-- What the head of outcomes says that ended alike: state (s, x or f; upper case if it was waiting for another
-- attempt before; with - if it leaves its sequence, or with ! if it is a dead letter that blocks it), fence, attempt
-- or for f the wait in ms, tenant, endpoint, and the key of the sequence that is left; with \0 between them.
local function ending(head)
  local parts = fields(head, 6)
  local kind, sign, tenant = string.sub(parts[1], 1, 1), string.sub(parts[1], 2), parts[4]
  local lane = tenant .. Z .. parts[5]
  return {
    kind = kind, fence = parts[2], number = parts[3], tenant = tenant, lane = lane,
    blocks = sign == '!', leaves = sign == '-' and lane .. Z .. parts[6],
    -- Where in a member the delivery's id begins.
    id = #tenant + 2,
  }
end

-- ARGV: channel, me, then per outcome: its head (see `ending`), member, and its record. Reply: whether something
-- can be leased now (1 or 0), then 1 or 0 for each: written, or the lease is lost.
local function record(keys, argv)
  local p = keys[1]
  local members, fences, endings, known = {}, {}, {}, {}
  for i = 3, #argv, 3 do
    local n, head = #members + 1, argv[i]
    local how = known[head]
    if not how then
      how = ending(head)
      known[head] = how
    end
    members[n], fences[n], endings[n] = argv[i + 1], how.fence, how
  end
  if #members == 0 then return { 0 } end
  local valid, held = in_force(p, members, fences)
  local reply = { 0 }
  if #held == 0 then
    for i = 1, #members do reply[i + 1] = 0 end
    return reply
  end
  many('ZREM', p .. 'l', held)
  local now = time()
  local ms = num(math.floor(now / 1000))
  local written, finished, waiting = {}, {}, {}
  local closed, opened, dead, counts = {}, {}, {}, {}
  local left, queues = {}, {}
  local succeeded, buried = 0, 0
  local d = p .. 'd:'
  for n = 1, #members do
    if not valid[n] then
      reply[n + 1] = 0
    else
      reply[n + 1] = 1
      local member, value, how = members[n], argv[2 + n * 3], endings[n]
      local tenant, lane, kind = how.tenant, how.lane, how.kind
      local id = string.sub(member, how.id)
      counts[lane] = (counts[lane] or 0) + 1
      written[#written + 1] = d .. member
      written[#written + 1] = value
      if how.leaves then add(left, how.leaves, id) end
      if kind == 'f' or kind == 'F' then
        waiting[#waiting + 1] = num(tonumber(ms) + tonumber(how.number))
        waiting[#waiting + 1] = lane .. Z .. id
        if kind == 'f' then add(opened, tenant, string.sub(value, 1, 16), id) end
      else
        if kind == 's' or kind == 'S' then
          succeeded = succeeded + 1
        else
          buried = buried + 1
          add(dead, tenant, string.sub(value, 1, 16), id)
        end
        if kind == 'S' or kind == 'X' then add(closed, tenant, id) end
        if not how.blocks then add(finished, tenant, ms .. Z .. how.number .. Z .. id) end
      end
    end
  end
  plain('MSET', written)
  local ends = {}
  for tenant, lines in pairs(finished) do
    many('RPUSH', p .. 'f:' .. tenant, lines)
    ends[tenant] = #lines
  end
  change(p .. 'm', ends)
  for tenant, ids in pairs(closed) do many('ZREM', p .. 'o:' .. tenant, ids) end
  for tenant, args in pairs(opened) do many('ZADD', p .. 'o:' .. tenant, args, 2) end
  for tenant, args in pairs(dead) do many('ZADD', p .. 'x:' .. tenant, args, 2) end
  if succeeded + buried > 0 then
    redis.call('HINCRBY', p .. 'k', 'o', -succeeded - buried)
    if succeeded > 0 then redis.call('HINCRBY', p .. 'k', 's', succeeded) end
    if buried > 0 then redis.call('HINCRBY', p .. 'k', 'x', buried) end
  end
  local quiet = is_quiet(p)
  if next(left) then
    for name, ids in pairs(left) do many('ZREM', p .. 'g:' .. name, ids) end
    advance(p, left, now, queues, waiting)
    queue(p, queues, stamps(p, now, 1), 'RPUSH')
  end
  delay(p, argv[1], waiting)
  landed(p, counts, function() return stamps(p, now, 1) end)
  wake(p, argv[1], argv[2], quiet)
  if not quiet or redis.call('EXISTS', p .. 't') == 1 then reply[1] = 1 end
  return reply
end

-- ARGV: channel, me, then per lease: lane, id, member, fence, keep (1, or 0 for a lease whose record is
-- gone, which is only dropped). Reply: how many were in force.
local function release(keys, argv)
  local p = keys[1]
  local members, fences = {}, {}
  for i = 3, #argv, 5 do
    members[#members + 1] = argv[i + 2]
    fences[#fences + 1] = argv[i + 3]
  end
  if #members == 0 then return 0 end
  local valid, held = in_force(p, members, fences)
  if #held == 0 then return 0 end
  many('ZREM', p .. 'l', held)
  local queues, counts = {}, {}
  -- From the last to the first, because each goes to the front.
  for n = #members, 1, -1 do
    if valid[n] then
      local i = 3 + (n - 1) * 5
      local lane = argv[i]
      if argv[i + 4] == '1' then add(queues, lane, '-' .. argv[i + 1]) end
      counts[lane] = (counts[lane] or 0) + 1
    end
  end
  local stamp = stamps(p, time(), 1)
  local quiet = is_quiet(p)
  landed(p, counts, function() return stamp end)
  queue(p, queues, stamp, 'LPUSH')
  wake(p, argv[1], argv[2], quiet)
  return #held
end

-- ARGV: member. Reply: record, end of the lease in us (or empty), and the delivery whose turn it is in its
-- sequence (or empty); or nothing.
local function get(keys, argv)
  local p = keys[1]
  local value = redis.call('GET', p .. 'd:' .. argv[1])
  if not value then return {} end
  local ends = redis.call('ZSCORE', p .. 'l', argv[1])
  local policy, _, key = sequence(value)
  local first = nil
  if policy then
    local _, _, endpoint = envelope(value)
    local tenant = string.sub(argv[1], 1, string.find(argv[1], Z, 1, true))
    local name = p .. 'g:' .. tenant .. endpoint .. Z .. key
    first = redis.call('ZRANGE', name, 0, 0)[1]
  end
  return { value, ends and num(tonumber(ends)) or '', first or '' }
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

-- ARGV: channel, me, tenant, id, lane, record as read, record to be, = with the key of its sequence or
-- nothing. Reply: 1 moved, 0 the record is another one by now, -1 not finished.
--
-- A sequence is in the order of creation, so a delivery that had left it takes its old place again, before
-- those that came later and have not gone yet. If it is another's turn it waits for that one.
local function replay(keys, argv)
  local p, tenant, id = keys[1], argv[3], argv[4]
  local key = p .. 'd:' .. tenant .. Z .. id
  local value = redis.call('GET', key)
  if value ~= argv[6] then return 0 end
  local kind = string.sub(value, 17, 17)
  if kind ~= 's' and kind ~= 'x' then return -1 end
  if kind == 'x' then redis.call('ZREM', p .. 'x:' .. tenant, id) end
  redis.call('SET', key, argv[7])
  redis.call('HINCRBY', p .. 'k', kind, -1)
  redis.call('HINCRBY', p .. 'k', 'o', 1)
  local quiet, now = is_quiet(p), time()
  local queues = { [argv[5]] = { '-' .. id } }
  local counted = true
  if #argv[8] > 0 then
    local name = argv[5] .. Z .. string.sub(argv[8], 2)
    local score = redis.call('ZSCORE', p .. 'g:' .. name, id)
    -- It is still its turn if it blocked.
    counted = not score or tonumber(score) ~= 0
    if counted then
      queues = {}
      redis.call('ZADD', p .. 'g:' .. name, string.sub(value, 1, 16), id)
      local waiting = {}
      advance(p, { [name] = true }, now, queues, waiting)
      delay(p, argv[1], waiting)
    end
  end
  if counted then redis.call('HINCRBY', p .. 'm', tenant, -1) end
  queue(p, queues, stamps(p, now, 1), 'RPUSH')
  wake(p, argv[1], argv[2], quiet)
  return 1
end

-- ARGV: channel, me, tenant, id, lane, key of its sequence. For a dead letter that blocks it: lets the
-- sequence go on. Reply: 1, or 0 when it does not block.
local function skip(keys, argv)
  local p, tenant, id = keys[1], argv[3], argv[4]
  local name = argv[5] .. Z .. argv[6]
  local key = p .. 'g:' .. name
  local value = redis.call('GET', p .. 'd:' .. tenant .. Z .. id)
  local score = redis.call('ZSCORE', key, id)
  if not value or not score or tonumber(score) ~= 0 then return 0 end
  local kind, _, _, attempt = envelope(value)
  if kind ~= 'x' then return 0 end
  local now = time()
  redis.call('ZREM', key, id)
  redis.call('RPUSH', p .. 'f:' .. tenant, num(math.floor(now / 1000)) .. Z .. attempt .. Z .. id)
  redis.call('HINCRBY', p .. 'm', tenant, 1)
  local quiet, queues, waiting = is_quiet(p), {}, {}
  advance(p, { [name] = true }, now, queues, waiting)
  queue(p, queues, stamps(p, now, 1), 'RPUSH')
  delay(p, argv[1], waiting)
  wake(p, argv[1], argv[2], quiet)
  return 1
end

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
redis.register_function('@_scan', scan)
redis.register_function('@_list', list)
redis.register_function('@_leased', leased)
redis.register_function('@_replay', replay)
redis.register_function('@_skip', skip)
redis.register_function('@_retain', retain)
redis.register_function('@_quotas', quotas)
redis.register_function('@_backlog', backlog)
