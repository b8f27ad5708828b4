"""The one text of a JSON object, for hashes and signatures."""

import json
from collections.abc import Mapping


def canonical_json(content: Mapping[str, object]) -> bytes:
    r"""ASCII, keys sorted, no spaces.

    >>> canonical_json({"b": 1, "a": "é"})
    b'{"a":"\\u00e9","b":1}'
    """
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
