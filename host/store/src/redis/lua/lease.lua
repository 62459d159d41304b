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
-- what the tenants that could be served have of weight together, about, then groups of tenant, endpoint, number of
-- entries, entries.
local function lease(keys, argv)
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
  local marks = redis.call('EXISTS', p .. 'h', p .. 'D', p .. 'S')
  local fence = num(mine)
  local call = {
    p = p, want = want, taken = 0, cap = cap, light = new and tonumber(argv[7]) or cap,
    new = new, now = now, soon = now + LATER / 2, before = now - NEW / 2,
    quotas = marks > 0 and redis.call('EXISTS', p .. 'h') == 1, owing = marks > 0,
    stalling = marks > 0 and redis.call('EXISTS', p .. 'S') == 1, least = least(cap), caps = {},
    fence = fence, stamp = stamp + 1, waiting = redis.call('ZCARD', p .. 't'),
    reply = { -1, fence, 0 }, members = {}, flying = {}, touched = {}, emptied = {},
  }
  local weight = weight_of_all(call)
  call.reply[3] = weight
  if not new and call.waiting > 1 then
    local in_flight = redis.call('ZCARD', p .. 'l')
    call.short = in_flight >= SHORT
    -- What is in flight and what is asked for, by weight among all that wait.
    call.part = math.ceil((in_flight + want) / weight)
  end
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

redis.register_function('@_lease', lease)
