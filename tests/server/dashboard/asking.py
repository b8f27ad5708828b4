"""A client of the dashboard's application, without a network."""

import asyncio
from typing import Any

import httpx
from starlette.types import ASGIApp


class Client:
    """Asks, keeps cookies, follows no redirect. An error of the application is an answer, as over a network."""

    def __init__(self, app: ASGIApp, base: str) -> None:
        self._app, self._base, self.cookies = app, base, httpx.Cookies()

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return asyncio.run(self._request(method, path, **options))

    async def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=self._base, cookies=self.cookies) as client:
            answer = await client.request(method, path, **options)
            self.cookies.update(client.cookies)
            return answer
