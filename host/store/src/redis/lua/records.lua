-- Taking apart what records and members say.

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

-- State, event, endpoint and attempt of a record; nothing when it is none: damaged, or of a version to come. One such
-- record must not hold up all others of its shard.
local function envelope(record)
  local a = string.find(record, Z, 18, true)
  local b = a and string.find(record, Z, a + 1, true)
  local c = b and string.find(record, Z, b + 1, true)
  if not c or b == a + 1 then return nil end
  return string.sub(record, 17, 17), string.sub(record, 18, a - 1), string.sub(record, a + 1, b - 1), string.sub(record, b + 1, c - 1)
end

-- What a record says of its sequence: s or b, when it is due in ms (or ''), the key; nothing if it has none.
local function sequence(record)
  local start, cut = 18, nil
  for _ = 1, 3 do
    cut = string.find(record, Z, start, true)
    if not cut then return nil end
    start = cut + 1
  end
  cut = string.find(record, Z, start, true)
  if not cut or cut == start then return nil end
  return string.match(string.sub(record, start, cut - 1), '^([sb])%d*:(%d*):(.*)$')
end
