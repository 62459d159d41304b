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

redis.register_function('@_check_lanes', check_lanes)
redis.register_function('@_check_entries', check_entries)
redis.register_function('@_check_members', check_members)
