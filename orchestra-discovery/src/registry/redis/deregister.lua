local member, incarnation = ARGV[3], ARGV[4]
if owned(member, incarnation) then remove(member, incarnation, 'deregistered') end
return {'done'}
