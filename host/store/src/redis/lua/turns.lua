-- The turns of tenants, and within a tenant those of its lanes.

local SCAN = 256        -- tenants and lanes looked at in one pass of a lease
local TURN = 8          -- deliveries of a turn where many tenants wait and much is asked for
local FAIR = 4          -- tenants that a call serves at least where many wait: who asks for little gets shorter turns
local FEW = 16          -- who has no more in flight for an endpoint may be served out of turn
local SHORT = 128       -- with fewer in flight there is no need to look who holds more places than others
local SAMPLE = 32       -- tenants that speak for all when it is asked what they weigh
local LATER = 100000    -- in us: so much later it is the turn of who holds its part of the places
local STAYS = 1000000   -- in us: so long at most who lacks places keeps its turn; others may hold them with nothing due
local ENOUGH = 0.75     -- of its part: who holds less goes on. With all of it, others hold a little more by then

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

-- How many an endpoint (a field of n) may have in flight that has `flying` and is to have up to `more` with them.
local function cap_of(call, field, flying, more)
  if not call.stalling or flying + more <= call.least then return call.cap end
  local cap = call.caps[field]
  if not cap then
    cap = part_of(call.cap, redis.call('HGET', call.p .. 'S', field))
    call.caps[field] = cap
  end
  return cap
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

-- How many these endpoints (`fields` of n, some of them twice) have in flight together.
local function held(call, fields)
  local sum, seen = 0, {}
  for i = 1, #fields do
    if not seen[fields[i]] then
      seen[fields[i]] = true
      sum = sum + call.flying[fields[i]]
    end
  end
  return sum
end

-- Takes up to `want` deliveries of one tenant from its lanes in turn, so that no endpoint has more than the call's
-- `light` in flight, whose cap is `cap`, and it holds no more than `part`, where that is given. Returns how many,
-- whether lanes are left in the ring, and, where `part` is given, how many it holds then.
local function serve(call, tenant, want, part)
  local p = call.p
  local key = p .. 'r:' .. tenant
  local limit = math.min(want, SCAN)
  -- One more than can be served, to know whether there are others, and more to know what it holds.
  local lanes = redis.call('ZRANGE', key, 0, part and math.max(limit, FEW) or limit)
  local n = math.min(#lanes, limit)
  if n == 0 then return 0, false, 0 end
  local more = #lanes > n
  local fields = {}
  for i = 1, #lanes do
    local lane = lanes[i]
    -- Both lanes of an endpoint count together.
    if string.byte(lane, -1) == 0 then lane = string.sub(lane, 1, -2) end
    fields[i] = tenant .. Z .. lane
  end
  learn_flying(call, fields)
  local holds
  if part then
    holds = held(call, fields)
    if holds >= part then return 0, true, holds end
    want = math.min(want, part - holds)
  end
  local gone, fair, greedy, blocked = {}, {}, {}, {}
  local taken, even = 0, math.floor(want / n)
  for i = 1, n do
    local flying = call.flying[fields[i]]
    local share = math.min(math.ceil((want - taken) / (n - i + 1)), call.light - flying)
    local room = cap_of(call, fields[i], flying, share) - flying
    share = math.min(share, room)
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
    return taken, false, holds
  end
  if #gone > 0 then redis.call('ZREM', key, unpack(gone)) end
  -- One alone need not go behind itself: who comes later is behind it anyway.
  if n > 1 or more then behind(key, call, fair, greedy) end
  return taken, true, part and holds + taken
end

-- What the tenants that can be served have of weight together, about.
local function weight_of_all(call)
  if not call.quotas or call.new or call.waiting == 0 then return call.waiting end
  local tenants = redis.call('ZRANGE', call.p .. 't', 0, SAMPLE - 1)
  local said, total = redis.call('HMGET', call.p .. 'h', unpack(tenants)), 0
  for i = 1, #tenants do total = total + (said[i] and tonumber(string.match(said[i], '^%d+')) or 1) end
  return math.ceil(call.waiting * total / #tenants)
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

-- The tenants whose turn is next, what they may have before the others, if anybody may, and, where places are short,
-- since when it is their turn; those whose turn has not come yet only if there are no others. Calls for new work
-- serve only those that stand before all that had a turn.
local function next_in_turn(call, limit)
  local p = call.p
  local tenants, since = nil, {}
  if call.new then
    tenants = redis.call('ZRANGE', p .. 't', '-inf', num(call.before), 'BYSCORE', 'LIMIT', 0, limit)
  elseif call.short then
    local said = redis.call('ZRANGE', p .. 't', 0, limit - 1, 'WITHSCORES')
    tenants = {}
    for i = 1, #said, 2 do
      local turn = tonumber(said[i + 1])
      if turn > call.soon and i > 1 and since[1] <= call.soon then break end
      tenants[#tenants + 1] = said[i]
      since[#tenants] = turn
    end
  else
    tenants = redis.call('ZRANGE', p .. 't', 0, limit - 1)
  end
  if #tenants == 0 or not call.owing then return tenants, {}, since end
  return tenants, redis.call('HMGET', p .. 'D', unpack(tenants)), since
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
-- a cap; `begun` as of `turn_of`; `owed` what D says of it; `since` when its turn came, where places are short.
-- There its turn is put off while it holds its part of them, if others have something due, and goes on until it holds
-- three quarters of that, if it has so much, or for `STAYS`: places are held for as long as receivers take, so turns
-- alone would give nearly all of them to the slowest.
local function serve_turn(call, round, tenant, weight, room, begun, owed, since)
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
  local got, left, holds = 0, true, nil
  -- Before that time all that the others have is given out. A turn is no shorter because its part is.
  local part = not owed and since and since <= call.soon and math.max(call.part, round.length) * weight
  if most > 0 then
    got, left, holds = serve(call, tenant, most, part)
    if part and got == 0 and left and holds >= part then
      round.later[#round.later + 1] = tenant
      return
    end
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
  elseif not (part and left and got > 0 and since > call.now - STAYS and holds < part * ENOUGH) then
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
  local length = math.max(1, math.min(TURN, math.floor(want / FAIR)))
  local limit = math.min(math.ceil(want / length), SCAN)
  local tenants, owed, since = next_in_turn(call, limit)
  local n = #tenants
  if n == 0 then return false end
  local weights, rooms, begun, total = {}, {}, {}, n
  if call.quotas then
    weights, rooms, begun, total = shares(p, tenants)
  end
  -- Whether others wait who cannot have a turn now.
  local crowded = (call.new or n == limit) and call.waiting > n
  local round = {
    length = length, crowded = crowded, total = total,
    unit = crowded and length or math.floor(want / total),
    gone = {}, fair = {}, greedy = {}, full = {}, spent = {}, spare = {}, later = {},
  }
  for i = 1, n do
    serve_turn(call, round, tenants[i], weights[i] or 1, rooms[i], begun[i], owed[i], since[i])
  end
  drop_emptied(call)
  if #round.full > 0 then redis.call('SADD', p .. 'B', unpack(round.full)) end
  if #round.gone > 0 then
    call.waiting = call.waiting - redis.call('ZREM', p .. 't', unpack(round.gone))
    redis.call('ZREM', p .. 's', unpack(round.gone))
  end
  if #round.spent > 0 then redis.call('HDEL', p .. 'D', unpack(round.spent)) end
  if #round.spare > 0 then
    hset(p .. 'D', round.spare)
    call.owing = true
  end
  behind(p .. 't', call, round.fair, round.greedy)
  if #round.later > 0 then
    local args = {}
    for i = 1, #round.later do
      args[2 * i - 1] = num(call.now + LATER + i)
      args[2 * i] = round.later[i]
    end
    redis.call('ZADD', p .. 't', 'XX', unpack(args))
  end
  return true
end
