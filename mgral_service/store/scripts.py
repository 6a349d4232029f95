"""The Lua of the Redis stores: each script is one atomic step.

A cycle is a hash: record (JSON), dataset, number, rank and status, job and attempts; of its lease
the last token given out (fence), owner, expires (server clock, milliseconds) and nonce (which call
took it, so that a call repeated after a lost connection gets the same answer).
"""

# A lease counts while its token is the last one given out and was not released: one that expired
# and was not taken by another still does.
_GUARD = """
local function guard(cycle, lease)
  local have = redis.call('HMGET', cycle, 'fence', 'owner')
  if not have[1] then return 'missing' end
  if lease ~= '' and (lease ~= have[1] or have[2] == '') then return 'stale' end
  return nil
end
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""

CREATE = """
-- KEYS claim, cycle, index, sequence, numbers
-- ARGV keyed, fingerprint, id, record, rank, status, dataset, ttl_s, job, attempts
if ARGV[1] == '1' then
  local claim = redis.call('HMGET', KEYS[1], 'fingerprint', 'cycle')
  if claim[1] then
    if claim[1] ~= ARGV[2] then return {'mismatch'} end
    return {'known', claim[2]}
  end
end
if redis.call('EXISTS', KEYS[2]) == 1 then return {'known', ARGV[3]} end
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

PUT = (
    _GUARD
    + """
-- KEYS cycle;  ARGV lease, record, rank, status, first terminal rank, job, attempts
local fault = guard(KEYS[1], ARGV[1])
if fault then return {fault} end
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
)

ACQUIRE = (
    _GUARD
    + """
-- KEYS cycle;  ARGV owner, ttl_ms, nonce
local fault = guard(KEYS[1], '')
if fault then return {fault} end
local have = redis.call('HMGET', KEYS[1], 'owner', 'expires', 'nonce', 'fence')
if have[3] == ARGV[3] then return {'ok', have[4]} end
if have[1] ~= '' and tonumber(have[2]) > now() then return {'held', have[1]} end
local token = redis.call('HINCRBY', KEYS[1], 'fence', 1)
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'expires', now() + ARGV[2], 'nonce', ARGV[3])
return {'ok', tostring(token)}
"""
)

RENEW = (
    _GUARD
    + """
-- KEYS cycle;  ARGV lease, ttl_ms
local fault = guard(KEYS[1], ARGV[1])
if fault then return {fault} end
redis.call('HSET', KEYS[1], 'expires', now() + ARGV[2])
return {'ok'}
"""
)

RELEASE = (
    _GUARD
    + """
-- KEYS cycle;  ARGV lease, nonce of this call
if redis.call('HGET', KEYS[1], 'nonce') == ARGV[2] then return {'ok'} end
local fault = guard(KEYS[1], ARGV[1])
if fault then return {fault} end
redis.call('HSET', KEYS[1], 'owner', '', 'nonce', ARGV[2])
return {'ok'}
"""
)

HOLDER = (
    _GUARD
    + """
-- KEYS cycle
local fault = guard(KEYS[1], '')
if fault then return {fault} end
local have = redis.call('HMGET', KEYS[1], 'owner', 'expires')
if have[1] ~= '' and tonumber(have[2]) > now() then return {'ok', have[1]} end
return {'ok', ''}
"""
)

PUT_FIELD = (
    _GUARD
    + """
-- KEYS cycle, hash;  ARGV lease, field, text, once
local fault = guard(KEYS[1], ARGV[1])
if fault then return {fault} end
if ARGV[4] == '1' then
  return {'ok', tostring(redis.call('HSETNX', KEYS[2], ARGV[2], ARGV[3]))}
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return {'ok', '1'}
"""
)

ADD_DATASET = """
-- KEYS dataset, names;  ARGV name, record
if redis.call('SETNX', KEYS[1], ARGV[2]) == 1 then redis.call('ZADD', KEYS[2], 0, ARGV[1]) end
return {redis.call('GET', KEYS[1])}
"""

ADD_LABELS = """
-- KEYS dataset, labels, order;  ARGV cycle, labels
if redis.call('EXISTS', KEYS[1]) == 0 then return {'missing'} end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[3], 'NX', redis.call('ZCARD', KEYS[3]), ARGV[1])
return {'ok'}
"""
