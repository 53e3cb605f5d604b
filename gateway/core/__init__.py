"""The gateway's rules, pure: state and event and now -> effect. No I/O, clock, randomness or logging in here.

api         the paths that clients call: which operation, in whose words, and how the body comes
plan        who can serve a name, in tiers, and by which lanes; compiled from the table
table       the routing table: applied in whole or not at all, and looked up
near        names that resemble an unknown one
keys        who may call, by hashed keys
body        the model's name in a request body, read and replaced without touching the rest; and asking for usage
shape       request policies: how a JSON body is changed before an endpoint gets it
multipart   the model's name in a form with files, as it comes
ejection    which lanes are left out because connecting to them failed
balance     whose turn it is
admission   limits, and who is next once they are reached
budget      how many retries there may be
attempt     one request from the first try to its end
errors      errors in the client's dialect
foreign     errors of engines, brought into that dialect
listing     what /v1/models shows
openapi     the API in OpenAPI, made of api
cors        which web pages may call from a browser
usage       tokens, as answers tell them
sse         streams of events: their tokens, their end, and the one event that is taken out
outcome     what became of a request
metrics     what is counted of requests, for monitoring
crew        what several workers count, as one
sums        outcomes added up, for control
questions   a question about usage that control is to answer
ids         request ids
"""
