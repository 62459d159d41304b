-- One command for many keys, members or names: a command called from Lua costs some 6,000 instructions
-- before it does anything.

local CHUNK = 2000      -- arguments per variadic command; Lua's stack holds some 8000
local SOME = 16         -- members that are worth making a table of a list, see `hset`
-- A member that is longer than those of a list may be, and that no name can be.
local LONG = '\0------------------------------------------------------------------------'

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
