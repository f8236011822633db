local member, incarnation, status = ARGV[3], ARGV[4], ARGV[5]
local lease, refusal = owned(member, incarnation)
if not lease then return refusal end
if lease.status ~= status then
  local record = incarnation .. ' ' .. whole(lease.ttl) .. ' ' .. status .. ' ' .. lease.text
  remember(advance(), member, '', '', record)
  put(member, nil, record)
end
return {'done'}
