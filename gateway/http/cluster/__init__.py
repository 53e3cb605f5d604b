"""/v1/cluster/…: questions about the cluster, in JSON. Control answers them, in the name of the client that asks.

api       the paths, and who may ask what
reading   what clients write: queries and bodies
usage     GET usage
explain   POST routes/explain: control's part of why, and this gateway's
"""

from gateway.http.cluster.api import Asked, ClusterApi
from gateway.http.cluster.explain import Explain

__all__ = ["Asked", "ClusterApi", "Explain"]
