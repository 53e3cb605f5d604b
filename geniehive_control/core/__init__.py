"""The rules of control, pure: no clock, no I/O, no randomness, no messages of the wire.

registry     the whole state behind one door: `handle(event, now) -> effects`
events       what can happen
effects      what follows
hosts        hosts, their sessions and leases; presumption after a restart
fencing      under which id a machine goes: its own, or another one if that is taken
grace        what gateways are not told right after a restart
inventory    what of an inventory is taken, and what is refused
verdict      whether a host and a service take requests, and why not
compile      hosts and services -> resources of the routing table
table        the resources with their versions; what changed
subscriber   what one gateway holds, and the next update for it
keys         client keys: look-up by digest, expiry, revocation
members      certificates and join tokens: what changes them, and who is told
trust        certificates: which are good, which are revoked
tokens       join tokens: look-up by digest, uses, expiry, revocation
lookup       one name, for Resolve: precedence, near matches
summary      how the cluster is
usage        what gateways reported, by hour, until it is stored; each report once
gauges       what is under way at gateways
records      what is kept in the database
refusal      why something was refused
"""
