import pytest
from hypothesis import given
from hypothesis import strategies as st

from geniehive.rules.identity import Peer, PeerKind, read_uri, relay_name

IDS = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)


@given(IDS, st.sampled_from(PeerKind), IDS)
def test_a_uri_is_read_as_it_was_written(cluster_id: str, kind: PeerKind, peer_id: str) -> None:
    peer = Peer(cluster_id, kind, peer_id)
    assert read_uri(peer.uri) == peer


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://c/node",
        "spiffe://c/node/",
        "spiffe:///node/h",
        "spiffe://c/node/h/more",
        "spiffe://c/control/h",
        "spiffe://c/NODE/h",
        "spiffe://c/node/H",
        "spiffe://c/node/../gateway",
        "https://c/node/h",
        "spiffe:c/node/h",
    ],
)
def test_any_other_uri_names_nobody(uri: str) -> None:
    assert read_uri(uri) is None


@given(IDS)
def test_the_name_of_a_relay_is_one_that_dns_allows(host_id: str) -> None:
    name = relay_name("cluster-1", host_id)
    assert len(name) < 254
    assert all(0 < len(part) < 64 and part.replace("-", "").isalnum() for part in name.split("."))


def test_the_name_of_a_relay_is_its_hosts_and_clusters_alone() -> None:
    names = {relay_name(cluster, host) for cluster in ("c", "d") for host in ("h", "h-2", "h.2")}
    assert len(names) == 6
