"""How gateways see that a request goes in a circle: each adds one to a header that only they and relays let through.

An engine of a cluster may be another cluster's gateway, whose engine may be the first cluster's.
"""

# In titles, as HTTP servers look headers up; the number is that of gateways that the request has passed.
HOPS = "X-Geniehive-Hops"
# A gateway in front of one's own, and one behind that, are honest uses. Who has passed more is refused.
MOST_HOPS = 3
