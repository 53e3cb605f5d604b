"""The gateway's rules, pure: state and event and now -> effect. No I/O, clock, randomness or logging in here.

api         the paths that clients call: which operation, in whose words, and how the body comes
plan        who can serve a name, in tiers, and by which lanes; compiled from the table
table       the routing table: applied in whole or not at all, and looked up
near        names that resemble an unknown one
keys        who may call, by hashed keys
body        the model's name in a request body, read and replaced without touching the rest; and asking for usage
needs       what a request needs of whoever serves it, read from its body where that matters
gates       who can't serve it by that, and what the client is told when nobody can
shape       request policies: how a JSON body is changed before an endpoint gets it
multipart   the model's name in a form with files, as it comes
asking      what a request is like, as far as it matters for who is asked
affinity    which prompts an engine probably still has in its cache
speeds      how fast endpoints are, and how long answers, as learned
wait        the wait at an endpoint, term by term, in seconds
strategy    how one of several is chosen
flight      one request at one endpoint, and what it tells once it is over
ejection    which lanes and endpoints are left out because they failed
balance     whose turn it is
considered  an endpoint as it stands when one is chosen, for people
loads       what engines are busy with, as control passes it on
admission   limits, and who is next once they are reached
budget      how many retries there may be
trying      what can happen while endpoints are asked, and what follows
attempt     one request from the first try to its end
errors      errors in the client's dialect
foreign     errors of engines, brought into that dialect
listing     what /v1/models shows
latency     how long answers take, by name
explaining  what would become of a request now, and why
openapi     the API in OpenAPI, made of api; the questions about the cluster are in openapi_cluster
cors        which web pages may call from a browser
usage       tokens, as answers tell them
sse         streams of events: their tokens, their end, and the one event that is taken out
outcome     what became of a request
metrics     what is counted of requests, for monitoring
crew        what several workers count, as one
sums        outcomes added up, for control
questions   questions that control is to answer, and how that may end
ids         request ids
"""
