"""What the certificates of this package say about their holders.

A daemon that joined is named by a URI (SPIFFE's form, which gRPC hands to the server ready to read). What a TLS client
compares is a DNS name: control has one name in every cluster, since each cluster has a CA of its own; a node, whose
relay is a server too, has one made from its host_id. None of these names is ever looked up.
"""

import hashlib
from enum import Enum
from typing import NamedTuple

from geniehive.rules import names

# In control's certificate, whatever address it is reached at.
CONTROL_NAME = "control.geniehive.internal"


class PeerKind(Enum):
    """A daemon that has a certificate. The values are the words of its URI."""

    NODE = "node"
    GATEWAY = "gateway"


class Peer(NamedTuple):
    """peer_id: the host_id of a node, the gateway_id of a gateway."""

    cluster_id: str
    kind: PeerKind
    peer_id: str

    @property
    def uri(self) -> str:
        return f"spiffe://{self.cluster_id}/{self.kind.value}/{self.peer_id}"

    @property
    def words(self) -> str:
        """For people: "node gpu-1"."""
        return f"{self.kind.value} {self.peer_id}"


def read_uri(uri: str) -> Peer | None:
    """The reverse of `Peer.uri`; None for any other URI."""
    scheme, colon, rest = uri.partition("://")
    parts = rest.split("/")
    if scheme != "spiffe" or not colon or len(parts) != 3:
        return None
    cluster_id, word, peer_id = parts
    kind = next((kind for kind in PeerKind if kind.value == word), None)
    if kind is None or not cluster_id or not names.is_id(peer_id):
        return None
    return Peer(cluster_id, kind, peer_id)


def relay_name(cluster_id: str, host_id: str) -> str:
    """The DNS name in a node's certificate.

    A digest: a host_id may hold what no DNS name can, and be as long as a part of one may be.
    """
    digest = hashlib.sha256(host_id.encode()).hexdigest()[:32]
    return f"{digest}.node.{cluster_id}.geniehive.internal"
