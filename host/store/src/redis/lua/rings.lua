-- Who is served, in which order: lanes and tenants enter the rings here, and come back to them.

local NEW = 1e15        -- some 30 years in us: puts a tenant before all that had a turn

local function is_quiet(p)
  return redis.call('EXISTS', p .. 't') == 0
end

-- Tells waiting hosts that there is work in this shard; `quiet` is whether nothing could be served
-- before. Who is awake leases until it gets less than it asked for, so one message per start of work
-- is enough. `me` lets the host that caused it pass the message over.
local function wake(p, channel, me, quiet)
  if quiet and channel ~= '' and redis.call('EXISTS', p .. 't') == 1 then
    redis.call('PUBLISH', channel, p .. me)
  end
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
