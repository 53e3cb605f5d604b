"""The gateway's rules, pure: state and event and now -> effect. No I/O, clock, randomness or logging in here.

plan        who can serve a name, in tiers, and by which lanes; compiled from the table
table       the routing table: applied in whole or not at all, and looked up
near        names that resemble an unknown one
keys        who may call, by hashed keys
body        the model's name in a request body, read and replaced without touching the rest; and asking for usage
multipart   the same in a form with files, as it comes
ejection    which lanes are left out because connecting to them failed
balance     whose turn it is
admission   limits, and who is next once they are reached
budget      how many retries there may be
attempt     one request from the first try to its end
errors      errors in OpenAI's JSON shape
foreign     errors of engines, brought into that shape
listing     what /v1/models shows
usage       tokens, as answers tell them
sse         streams of events: their tokens, their end, and the one event that is taken out
outcome     what became of a request
metrics     what is counted of requests, for monitoring
sums        outcomes added up, for control
questions   a question about usage that control is to answer
ids         request ids
"""
