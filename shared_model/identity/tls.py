"""TLS as hipfed speaks it: version 1.3, and one authority that is trusted."""

import ssl
from pathlib import Path

LEAST = ssl.TLSVersion.TLSv1_3


def trusting(ca: Path) -> ssl.SSLContext:
    """A client's side that trusts what this authority signed, and nothing else.

    Args:
        ca: the authority's certificate.

    Raises:
        OSError: there is none, or (as an SSLError) it is damaged.
    """
    context = ssl.create_default_context(cafile=str(ca))
    context.minimum_version = LEAST
    return context


def modern(context: ssl.SSLContext) -> ssl.SSLContext:
    """The same context, which refuses whoever speaks no TLS 1.3."""
    context.minimum_version = LEAST
    return context
