"""The pages for a browser: an index at `/`, and the routes at `/docs`. They load nothing from other hosts."""

from html import escape
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Match
from swagger_ui_bundle import swagger_ui_path  # type: ignore[import-untyped]

from chassis.web.problems import RouteUnknown

PLACES: Final = {
    "/docs": "the routes, to read and to try",
    "/openapi.json": "the routes, for programs",
    "/asyncapi": "the events, to read",
    "/asyncapi.json": "the events, for programs",
    "/health/ready": "whether the process takes requests, and if not, why",
    "/metrics": "measurements of this process",
}
_KINDS: Final = {"js": "application/javascript", "css": "text/css"}
_FILES: Final = frozenset({"swagger-ui-bundle.js", "swagger-ui.css", "start.js"})
_START: Final = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#routes", deepLinking: true, persistAuthorization: true});'
_DOCS: Final = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
    '<link rel=stylesheet href="/docs/swagger-ui.css"><div id=routes></div>'
    '<script src="/docs/swagger-ui-bundle.js"></script><script src="/docs/start.js"></script>'
)
_INDEX: Final = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
    "<style>body{{font:15px/1.6 system-ui;margin:3rem auto;max-width:40rem;padding:0 1rem}}</style>"
    "<h1>{title}</h1><ul>{places}</ul>"
)


def pages(title: str) -> APIRouter:
    """The index of those `PLACES` that the application has, and the documentation."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def index(request: Request) -> Response:
        """The addresses that a person or a program can go to."""
        places = {path: said for path, said in PLACES.items() if _is_there(request, path)}
        if "text/html" not in request.headers.get("accept", ""):
            return JSONResponse({"title": title, "places": places})
        items = "".join(f"<li><a href={path}>{path}</a> {escape(said)}</li>" for path, said in places.items())
        return HTMLResponse(_INDEX.format(title=escape(title), places=items))

    @router.get("/docs")
    async def docs() -> Response:
        """The routes, with Swagger UI."""
        return HTMLResponse(_DOCS.format(title=escape(title)))

    @router.get("/docs/{name}")
    async def docs_file(name: str) -> Response:
        """A file that the page of the routes loads."""
        if name not in _FILES:
            raise RouteUnknown
        kind = _KINDS[name.rpartition(".")[2]]
        return Response(_START if name == "start.js" else _file(name), media_type=kind)

    return router


def _is_there(request: Request, path: str) -> bool:
    scope = {**request.scope, "path": path}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes)


def _file(name: str) -> bytes:
    """A file of the package that carries Swagger UI."""
    found: bytes = (swagger_ui_path / name).read_bytes()
    return found
