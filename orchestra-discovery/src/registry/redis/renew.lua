local member, incarnation = ARGV[3], ARGV[4]
local lease, refusal = owned(member, incarnation)
if not lease then return refusal end
redis.call('ZADD', due, whole(now + lease.ttl), member)
return {'done'}
