"""The demonstration engine beside a node: whether it is started, and why it could not be."""

from collections.abc import Mapping
from typing import Any, Literal

from geniehive.cli.children import Children, reason
from geniehive.kit.supervise import Ended

Wanted = Literal["auto", "never", "always"]


class Demo:
    """wanted: "auto" means: if the node's first look found no model to chat with. address: "HOST:PORT" to listen on."""

    def __init__(self, children: Children, wanted: Wanted, address: str | None) -> None:
        self._children = children
        self._wanted = wanted
        self._address = address
        self._decided = False
        # Why it does not run though it should.
        self.trouble = ""

    @property
    def engines(self) -> list[dict[str, Any]]:
        """For the node's setting `engines`: it is told from the start where this engine would be."""
        if self._address is None:
            return []
        return [
            {
                "name": "demo",
                "url": f"http://{self._address}",
                "runtime": "llamacpp",
                "demo": True,
                "operations": ["chat", "completions", "embeddings"],
            }
        ]

    def begin(self) -> None:
        if self._wanted == "always":
            self._start()

    def on_notice(self, name: str, notice: Mapping[str, Any]) -> None:
        """Only the first look counts: an engine that fails later is no reason for another one."""
        if name == "node" and notice["notice"] == "first_look" and not self._decided:
            self._decided = True
            if self._wanted == "auto" and not notice.get("chat_models"):
                self._start()

    def _start(self) -> None:
        from geniehive_node import demo

        self._decided = True
        trouble = demo.available()
        if trouble is not None:
            self.trouble = trouble
            return
        assert self._address is not None
        host, _, port = self._address.rpartition(":")
        self._children.start("demo", "geniehive_node.demo", "--host", host.strip("[]"), "--port", port)

    def on_end(self, event: Ended) -> None:
        """It ended for good. Everything else goes on."""
        self.trouble = reason(event)

    @property
    def expected(self) -> bool:
        return self._children.keeps("demo")

    @property
    def loading(self) -> bool:
        return self.expected and ("demo", "ready") not in self._children.heard

    @property
    def notes(self) -> list[str]:
        return [f"The demo engine could not be started: {self.trouble}"] if self.trouble else []
