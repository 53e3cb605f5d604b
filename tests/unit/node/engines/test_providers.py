from geniehive.kit.http1 import split_url
from geniehive.rules.names import is_id
from geniehive_node.engines.providers import KNOWN


def test_every_known_provider_can_be_used_as_it_stands() -> None:
    for name, provider in KNOWN.items():
        origin, path = split_url(provider.url)
        assert is_id(name)
        assert origin.scheme == "https"
        assert path
        assert provider.key_variable.isupper()
