"""Control: keeps the registry of the cluster, compiles the routing table, and streams it to the gateways.

__main__   the command `geniehive control`
settings   what can be set
app        builds everything, alone; starts and stops in order
rpc/       the gRPC services: who may call, messages to events, effects to messages
store/     the database: tables, migrations, reads and writes
authority  the cluster's CA in files, and control's own certificate
profiles   what operators change of roles and aliases
catalogue  the file of roles and aliases: read, watched, refused or taken
joining    join tokens, and the certificates that they give
hub        the one owner of the core: feeds it, runs its timers, carries out its effects
prober     connects to hosts, and asks engines whether they are well
questions  how that is asked, directly and by relays
usage      what gateways report, written behind; what is under way at them
loads      load, from nodes to gateways
ports      what the hub needs from outside
core/      every rule, pure: (state, event, now) -> effects

The data's way: rpc turns a message into an event; the hub hands it to `core.registry`, which changes the state and says
in effects what follows; the hub stores, wakes streams and ends sessions accordingly.
"""
