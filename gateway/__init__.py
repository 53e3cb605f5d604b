"""The gateway: one OpenAI-compatible address for the whole cluster.

It holds a routing table that control compiles and streams to it, and proxies each HTTP call to a server that has the
model. No database and no RPC lie on the way of a request whose name the table knows, and no disk, but for a large form
that names its model after its file: that waits on the disk until it is whole.

settings   what can be configured
core       pure rules: table, keys, balance, attempts, errors
patience   how long engines are waited for, by what they are asked
upstream   asking an engine, straight or through its node's relay
relays     the way to relays of other machines, by certificate
http       the HTTP side: paths, bodies, answers
watch      the gRPC side: the link to control, the table's stream, the table kept on disk, look-ups of unknown names
app        builds all of it, and runs it until told to stop
workers    several of these processes at one address
crew       how they know of one another, to be counted as one
"""
