"""What several daemons need alike and is pure; the one package of ours that a core may import.

names        how hosts, services and resources are named
families     what a model's name says of it
canonical    one name for one model, however services spell it
operations   what a client can ask for, and at which paths
hops         how a request that goes in a circle is noticed
identity     what certificates say of their holders
join_token   what a machine needs to join, in one word
renewal      when to ask for a certificate
histogram    times counted in buckets, and what these tell
model        the nouns: host, service, asset, way, relay, route, endpoint, upstream, key, load
"""
