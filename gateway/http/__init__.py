"""The HTTP side of the gateway.

server       listens, and drains when told to stop
handler      which path is what, and who may call it
calls        one call to a model: body, route, attempts, answer
exchange     one request with its client's connection: the body in, the answer out
headers      which headers of an engine's answer reach the client, and what we add
certificate  of HTTPS: read from files, and again when they change
"""
