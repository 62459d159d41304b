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

redis.register_function('@_check_sequences', check_sequences)
redis.register_function('@_check_behind', check_behind)
redis.register_function('@_bury', bury)
