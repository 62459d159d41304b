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
-- attempt before), what the attempt says of its endpoint (a: it answers, t: it stalls, n: nothing) and - if it leaves
-- its sequence, or ! if it is a dead letter that blocks it; fence, attempt or for f the wait in ms, tenant, endpoint,
-- and the key of the sequence that is left; with \0 between them.
local function ending(head)
  local parts = fields(head, 6)
  local kind, reaction, sign = string.sub(parts[1], 1, 1), string.sub(parts[1], 2, 2), string.sub(parts[1], 3)
  local tenant = parts[4]
  local lane = tenant .. Z .. parts[5]
  return {
    kind = kind, answered = reaction == 'a', stalled = reaction == 't', fence = parts[2], number = parts[3], tenant = tenant, lane = lane,
    blocks = sign == '!', leaves = sign == '-' and lane .. Z .. parts[6],
    -- Where in a member the delivery's id begins.
    id = #tenant + 2,
  }
end

-- ARGV: channel, me, then per outcome: its head (see `ending`), or nothing for that of the one before, member, and
-- its record. Reply: whether something
-- can be leased now (1 or 0), then 1 or 0 for each: written, or the lease is lost.
local function record(keys, argv)
  local p = keys[1]
  local members, fences, endings, known, how = {}, {}, {}, {}, nil
  for i = 3, #argv, 3 do
    local n, head = #members + 1, argv[i]
    -- Without one it ended as the outcome before it.
    if head ~= '' then
      how = known[head]
      if not how then
        how = ending(head)
        known[head] = how
      end
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
  local left, queues, answered, stalled = {}, {}, {}, {}
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
      if how.answered then
        answered[lane] = (answered[lane] or 0) + 1
      elseif how.stalled then
        stalled[lane] = (stalled[lane] or 0) + 1
      end
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
  note_reactions(p, answered, stalled)
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

redis.register_function('@_record', record)
redis.register_function('@_release', release)
