"""Proxy variables (HTTPS_PROXY): hipfed follows none.

A coordinator's parts, and a simulation's, meet on loopback; a hospital reaches its coordinator directly. Flower's
clients would go through a proxy even to loopback.
"""

import os
from collections.abc import Mapping


def without_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without proxies and exemptions from them."""
    return {name: value for name, value in environment.items() if not name.lower().endswith("_proxy")}


def forget_proxies() -> None:
    """Take them out of this process's environment, before a client of Flower reads them."""
    for name in {*os.environ} - {*without_proxies(os.environ)}:
        del os.environ[name]
