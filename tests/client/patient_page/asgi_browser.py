"""A browser for an ASGI app in this process: it keeps cookies and follows redirects."""

import asyncio
from dataclasses import dataclass, field

import httpx

from client.patient_page.viewer.guard import ViewerGuard


@dataclass
class AsgiBrowser:
    """Asks a viewer at its own address.

    Attributes:
        viewer: that answers.
        origin: its address.
        cookies: that it was given.
    """

    viewer: ViewerGuard
    origin: str
    cookies: httpx.Cookies = field(default_factory=httpx.Cookies)

    @property
    def start(self) -> str:
        return self.viewer.start_address.removeprefix(self.origin)

    @property
    def home(self) -> str:
        return self.start.partition("start")[0]

    def get(self, path: str, *, headers: dict[str, str] | None = None, follow: bool = True) -> httpx.Response:
        return self.request("GET", path, headers=headers, follow=follow)

    def request(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, follow: bool = True
    ) -> httpx.Response:
        return asyncio.run(self._request(method, path, headers or {}, follow=follow))

    async def _request(self, method: str, path: str, headers: dict[str, str], *, follow: bool) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.viewer, raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport, base_url=self.origin, cookies=self.cookies, follow_redirects=follow
        ) as client:
            answer = await client.request(method, path, headers=headers)
            self.cookies = httpx.Cookies(client.cookies)
        return answer
