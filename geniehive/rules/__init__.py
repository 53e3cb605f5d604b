"""What several daemons need alike and is pure; the one package of ours that a core may import.

names        how hosts, services and resources are named
operations   what a client can ask for, and at which paths
model        the nouns: host, service, asset, way, relay, route, endpoint, upstream, key, load
"""
