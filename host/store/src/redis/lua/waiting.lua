-- What waits for its time, or for its turn in a sequence.

local PROMOTE = 250     -- waiting deliveries made due per lease call, which takes a millisecond

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
        -- It cannot be read, so it keeps its place, and the others behind it.
        if not kind then break end
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
