"""The Lua of the Redis stores: each script is one atomic step.

A cycle is a hash: record (JSON), dataset, number, rank and status, job and attempts; of its lease
the last token given out (fence), owner, expires (server clock, milliseconds) and nonce (which call
took it, so that a call repeated after a lost connection gets the same answer).
"""

FENCE = """
-- Before each script below that has a lease.  KEYS cycle;  ARGV lease ('' is none), ...
-- A lease counts while its token is the last one given out and was not released: one that expired
-- and was not taken by another still does. A release that is repeated knows its nonce.
local fence, owner, expires, nonce = unpack(
  redis.call('HMGET', KEYS[1], 'fence', 'owner', 'expires', 'nonce'))
if not fence then return {'missing'} end
if ARGV[1] ~= '' and (ARGV[1] ~= fence or owner == '') and ARGV[2] ~= nonce then
  return {'stale'}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local live = owner ~= '' and tonumber(expires) > now
"""

CREATE = """
-- KEYS claim, cycle, index, sequence, numbers
-- ARGV keyed, fingerprint, id, record, rank, status, dataset, ttl_s, job, attempts
if ARGV[1] == '1' then
  local claim = redis.call('HMGET', KEYS[1], 'fingerprint', 'cycle')
  if claim[1] then
    if claim[1] ~= ARGV[2] then return {'mismatch'} end
    return {'exists', claim[2]}
  end
end
if redis.call('EXISTS', KEYS[2]) == 1 then return {'exists', ARGV[3]} end
local number = redis.call('HINCRBY', KEYS[5], ARGV[7], 1)
redis.call('HSET', KEYS[2], 'record', ARGV[4], 'rank', ARGV[5], 'status', ARGV[6],
  'number', number, 'job', ARGV[9], 'attempts', ARGV[10],
  'fence', 0, 'owner', '', 'expires', 0, 'nonce', '')
redis.call('ZADD', KEYS[3], redis.call('INCR', KEYS[4]), ARGV[3])
if ARGV[1] == '1' then
  redis.call('HSET', KEYS[1], 'fingerprint', ARGV[2], 'cycle', ARGV[3])
  redis.call('EXPIRE', KEYS[1], ARGV[8])
end
return {'new', ARGV[3]}
"""

PUT = """
-- KEYS cycle;  ARGV lease, record, rank, status, first terminal rank, job, attempts
local have = redis.call('HMGET', KEYS[1], 'rank', 'status', 'attempts')
local old, new = tonumber(have[1]), tonumber(ARGV[3])
if new ~= old and (new < old or old >= tonumber(ARGV[5])) then return {'illegal', have[2]} end
redis.call('HSET', KEYS[1], 'record', ARGV[2], 'rank', ARGV[3], 'status', ARGV[4])
local before, after = tonumber(have[3]), tonumber(ARGV[7])
if after > before or (after == before and ARGV[6] ~= '') then
  redis.call('HSET', KEYS[1], 'job', ARGV[6], 'attempts', ARGV[7])
end
return {'ok'}
"""

ACQUIRE = """
-- KEYS cycle;  ARGV '', owner, ttl_ms, nonce
if nonce == ARGV[4] then return {'ok', fence} end
if live then return {'held', owner} end
local token = redis.call('HINCRBY', KEYS[1], 'fence', 1)
redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'expires', now + ARGV[3], 'nonce', ARGV[4])
return {'ok', tostring(token)}
"""

RENEW = """
-- KEYS cycle;  ARGV lease, ttl_ms
redis.call('HSET', KEYS[1], 'expires', now + ARGV[2])
return {'ok'}
"""

RELEASE = """
-- KEYS cycle;  ARGV lease, nonce of this call
redis.call('HSET', KEYS[1], 'owner', '', 'nonce', ARGV[2])
return {'ok'}
"""

HOLDER = """
-- KEYS cycle;  ARGV ''
return {'ok', live and owner or ''}
"""

PUT_FIELD = """
-- KEYS cycle, hash;  ARGV lease, field, text, once
if ARGV[4] == '1' then
  return {'ok', tostring(redis.call('HSETNX', KEYS[2], ARGV[2], ARGV[3]))}
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return {'ok', '1'}
"""

ADD_DATASET = """
-- KEYS dataset, images, names;  ARGV name, record, images
if redis.call('SETNX', KEYS[1], ARGV[2]) == 1 then
  redis.call('SET', KEYS[2], ARGV[3])
  redis.call('ZADD', KEYS[3], 0, ARGV[1])
end
return {redis.call('GET', KEYS[1])}
"""

ADD_LABELS = """
-- KEYS dataset, labels, order, labelled: how many cycles brought an image;  ARGV cycle, labels
local function count(labels, change)
  for _, image in ipairs(cjson.decode(labels).ids) do
    if redis.call('HINCRBY', KEYS[4], image, change) == 0 then
      redis.call('HDEL', KEYS[4], image)
    end
  end
end
if redis.call('EXISTS', KEYS[1]) == 0 then return {'missing'} end
local before = redis.call('HGET', KEYS[2], ARGV[1])
if before then count(before, -1) end
count(ARGV[2], 1)
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[3], 'NX', redis.call('ZCARD', KEYS[3]), ARGV[1])
return {'ok'}
"""
