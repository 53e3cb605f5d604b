"""The rules of control, pure: no clock, no I/O, no randomness, no messages of the wire.

registry     the whole state behind one door: `handle(event, now) -> effects`
events       what can happen
effects      what follows
hosts        one host: its session, what it offers; presumption after a restart
sessions     the sessions of nodes: hello, leases, inventories, and how hosts come and go with them
fencing      under which id a machine goes: its own, or another one if that is taken
grace        what gateways are not told right after a restart
inventory    what of an inventory is taken, and what is refused
listing      what of hosts and services is in the table: as nodes, probes and gateways say
health       what probes and gateways' outcomes say of services, beside their nodes' word
probes       which ways to engines are to be asked, and which are broken
failing      which services fail what gateways send them
reach        which hosts can be connected to
verdict      whether a host and a service take requests, and why not
offers       what services offer, as endpoints
facts        what routes depend on of an endpoint; what control adds to its requests
gates        what a role demands of an endpoint
tiers        roles -> tiers, with their fallbacks
aliases      which alias a name is, or is shadowed by; names that control finds
compile      what a name means, as a route
naming       all names: which routes are stale, and their compiling
merits       speeds, times and benchmarks of endpoints
scoring      the terms of a match score, their figures and weights
defaults     what the operator sets for all routes
table        the resources with their versions; what changed
matching     roles and services that fit a task, for MatchRoutes
explaining   every endpoint of a name and its gate or tier, for ExplainRoute
gateways     the streams of gateways: who is there, what each is told next
subscriber   what one gateway holds, and the next update for it
keys         client keys: look-up by digest, expiry, revocation
callers      what follows when keys come, expire or are revoked
members      certificates and join tokens: what changes them, and who is told
peers        what follows for streams when nodes and gateways join, or are revoked
trust        certificates: which are good, which are revoked
tokens       join tokens: look-up by digest, uses, expiry, revocation
lookup       one name, for Resolve: precedence, near matches
summary      how the cluster is
usage        what gateways reported, by hour, until it is stored; each report once
catalogue    roles and aliases, of the file and of operators: what may be said, what is in force
profiles     what follows when they change
profile_checks  what makes sense as a role and as an alias
benchmarks   what was measured of models; the newest of each
gauges       what is under way at gateways
sampling     load of services, as gateways are told of it: what changed since they were told last
figures      how fast endpoints are and how long answers, as gateways saw it over the last minutes; in bands
learning     brings these figures into the table
records      what is kept in the database
refusal      why something was refused
"""
