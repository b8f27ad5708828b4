"""Proxy variables are not followed."""

import os
from unittest import mock

from shared_model.identity.proxy_variables import forget_proxies, without_proxies


def test_no_spelling_of_a_proxy_or_an_exemption_is_left() -> None:
    names = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "grpc_proxy", "no_grpc_proxy", "NO_PROXY", "Http_Proxy")
    environment = {**dict.fromkeys(names, "http://proxy.example.org:3128"), "PATH": "/bin", "PROXY_OF": "nobody"}

    assert without_proxies(environment) == {"PATH": "/bin", "PROXY_OF": "nobody"}


def test_they_are_taken_out_of_the_process() -> None:
    with mock.patch.dict(os.environ, {"HTTPS_PROXY": "http://proxy.example.org:3128"}):
        before = dict(os.environ)

        forget_proxies()

        assert "HTTPS_PROXY" in before
        assert dict(os.environ) == without_proxies(before)
