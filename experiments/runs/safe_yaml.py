"""YAML that ends: of limited size and depth, aliases counted at their full length, and each key once."""

from __future__ import annotations

from typing import Any, NamedTuple

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MOST_CHARACTERS, MOST_LEVELS, MOST_VALUES = 200_000, 50, 20_000


def read_yaml(text: str) -> Any:
    """The values in ``text``.

    Raises:
        yaml.YAMLError: with the line, also for what goes beyond the limits or has a key twice.
    """
    if len(text) > MOST_CHARACTERS:
        raise yaml.YAMLError(f"it has {len(text)} characters, and a configuration takes {MOST_CHARACTERS} at most")
    return yaml.load(text, Loader=_Loader)


class _Here(NamedTuple):
    start_mark: yaml.Mark


class _Loader(yaml.SafeLoader):
    # A date is a text, as it is to jsonargparse.
    yaml_implicit_resolvers = {  # noqa: RUF012
        letter: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._level = 0
        self._extents: dict[Node, tuple[int, int]] = {}
        """Values in each node that is complete, and its levels."""

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self._level += 1
        try:
            self._limit(self._level <= MOST_LEVELS, f"nested in more than {MOST_LEVELS} levels", event)
            node: Node | None = super().compose_node(parent, index)
        finally:
            self._level -= 1
        if node is None:
            return None
        if isinstance(event, yaml.AliasEvent):
            self._limit(node in self._extents, f"*{event.anchor} stands within what it names", event)
        else:
            self._extents[node] = self._extent(node)
        values, levels = self._extents[node]
        self._limit(values <= MOST_VALUES, f"more than {MOST_VALUES} values, where each alias is written out", event)
        self._limit(self._level + levels <= MOST_LEVELS, f"nested in more than {MOST_LEVELS} levels", event)
        return node

    def fetch_flow_collection_start(self, token_class: Any) -> None:
        # It reads on, however many brackets there are, before the first is composed.
        self._limit(self.flow_level < MOST_LEVELS, f"nested in more than {MOST_LEVELS} levels", _Here(self.get_mark()))
        super().fetch_flow_collection_start(token_class)

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node: MappingNode = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], ScalarNode] = {}
        for key, _ in node.value:
            if isinstance(key, ScalarNode):
                before = first.setdefault((key.tag, key.value), key)
                self._limit(before is key, f"{key.value} is already set in line {before.start_mark.line + 1}", key)
        return node

    def _extent(self, node: Node) -> tuple[int, int]:
        if isinstance(node, MappingNode):
            inner = [self._extents[part] for pair in node.value for part in pair]
        elif isinstance(node, SequenceNode):
            inner = [self._extents[part] for part in node.value]
        else:
            inner = []
        return 1 + sum(values for values, _ in inner), 1 + max((levels for _, levels in inner), default=0)

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise ConstructorError(None, None, f"not of the type {node.tag}", node.start_mark) from error
        if isinstance(value, int):
            self._limit(-(2**63) <= value < 2**63, "a whole number of more than 64 bits", node)
        return value

    @staticmethod
    def _limit(holds: Any, problem: str, place: Any) -> None:
        if not holds:
            raise ComposerError(None, None, problem, place.start_mark)
