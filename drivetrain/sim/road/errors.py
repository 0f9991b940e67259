"""What is wrong with a map, and where."""

from __future__ import annotations


class BadMap(ValueError):
    """An OpenDRIVE text that cannot be driven on; names the element, what stands there and what should."""

    def __init__(self, element: str, got: object, expected: str):
        super().__init__(f"BadMap: {element}: got {got!r}, expected {expected}")
        self.element, self.got, self.expected = element, got, expected
