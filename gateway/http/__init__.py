"""The HTTP side of the gateway.

server       listens, and drains when told to stop
handler      which path is what, and who may call it
calls        one call to a model: body, route, attempts, answer
call         endpoints asked in turn, until an answer can be passed on
passing      the way of an answer to the client
forms        forms with files: streamed through, or kept on the disk until their model is known
exchange     one request with its client's connection: the body in, the answer out
tally        what is learned of a request on its way
records      where requests are recorded when they have ended
access       the access log: one line per request
metrics      GET /metrics, in Prometheus' words
cluster/     questions about the cluster, and why a request goes where it does
headers      which headers of an engine's answer reach the client, and what we add
certificate  of HTTPS: read from files, and again when they change
"""
