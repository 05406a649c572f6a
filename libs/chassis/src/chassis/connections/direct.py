"""HTTP to processes of our own, past the proxies of the environment: these are for the world outside."""

from functools import cache
from typing import Any
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener


def opened_directly(request: Request | str, *, seconds_max: float) -> Any:
    """The answer; raises what `urllib.request.urlopen` raises."""
    return _direct().open(request, timeout=seconds_max)


@cache
def _direct() -> OpenerDirector:
    return build_opener(ProxyHandler({}))
