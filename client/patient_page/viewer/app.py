"""The viewer's pages: the list, a patient, and what is said where there is none. Every route only reads."""

import logging

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp

from client.patient_page.page import page_words, patient_policy, render_list, render_message
from client.patient_page.viewer.guard import Secrets, ViewerGuard
from client.patient_page.viewer.roster import PatientList
from shared_model.errors import HipfedError

_LOG = logging.getLogger("hipfed.viewer")


def build_viewer(roster: PatientList, *, port: int) -> ViewerGuard:
    """The viewer as an ASGI app.

    Args:
        roster: the patients.
        port: of the socket on 127.0.0.1 that will serve it.
    """
    known = Secrets()
    return ViewerGuard(
        _routes(roster, home=f"/{known.place}/"),
        port=port,
        known=known,
        refuse=refuse,
        policy=f"{patient_policy()}; frame-ancestors 'none'",
    )


def refuse(reason: str, status: int) -> Response:
    """An answer that says why nothing is shown."""
    return _message(page_words()(f"viewer.{reason}"), status=status)


def _message(text: str, *, status: int, home: str = "") -> Response:
    return HTMLResponse(render_message(text, home=home), status_code=status)


def _routes(roster: PatientList, *, home: str) -> ASGIApp:
    app, words = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False), page_words()

    @app.get(home)
    def show_list() -> Response:
        doubts = roster.doubts(words)
        return HTMLResponse(render_list(roster.rows, site=roster.site_name, study=roster.study, doubts=doubts))

    # The address holds the patient's place in the list: browsers keep addresses, and some send them elsewhere.
    @app.get(home + "patient/{row}")
    def show_patient(row: str) -> Response:
        if not (row.isascii() and row.isdecimal() and len(row) < 10 and int(row) < len(roster.rows)):
            return _message(words("viewer.unknown_patient"), status=404, home=home)
        try:
            return HTMLResponse(roster.page(int(row), home=home))
        except HipfedError as error:
            return _message(f"{words('viewer.cannot_explain')} {error}", status=422, home=home)
        except Exception as error:  # noqa: BLE001 - whatever it is, the viewer goes on
            _LOG.exception("a page could not be made")
            return _message(words("viewer.failed", kind=type(error).__name__), status=500, home=home)

    @app.exception_handler(404)
    def say_not_found(_: Request, __: Exception) -> Response:
        return _message(words("viewer.not_found"), status=404, home=home)

    return app
