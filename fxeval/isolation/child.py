"""The process that owns a user's explainer and a copy of the network; run as a program.

It answers four messages: ``start`` builds the explainer, ``lend`` gives it a copy of the network or
other weights, ``unsupported`` asks whether it can explain the network, ``explain`` asks for maps.
Nothing heavy is imported before the process in between has been split off.
"""

from typing import TYPE_CHECKING, Any

from fxeval.isolation.running import serve

if TYPE_CHECKING:
    from fxeval.isolation.served import Served

_SERVED: "list[Served]" = []


def _answer(message: bytes) -> bytes:
    from fxeval.isolation.served import Served

    if not _SERVED:
        _SERVED.append(Served())
    found: Any = _SERVED[0].answer(message)
    return bytes(found)


if __name__ == "__main__":
    serve(_answer)
