"""Problem details (RFC 9457) for every error, with a stable code and a title in Chinese or English.

A refusal is a class with a code. Only this module maps refusals to HTTP.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from chassis.observability import telemetry
from chassis.write.deciding import Refusal

MEDIA_TYPE: Final = "application/problem+json"
ERRORS_TOLD_MAX: Final = 20
DETAIL_CHARACTERS_MAX: Final = 500
RETRY_AFTER_SECONDS: Final = 2

_encode: Final = msgspec.json.Encoder().encode


class InvalidPart(BaseModel):
    """One part of a request that cannot be read, without its value."""

    part: Literal["body", "query", "path", "header", "cookie"]
    place: str = Field(description="names and indexes from the part inwards, separated by dots")
    message: str
    kind: str


class Problem(BaseModel):
    """The body of every error response."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:crm:problem:request-invalid",
                    "title": "The request is not what this route takes",
                    "status": 422,
                    "code": "request-invalid",
                    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
                    "errors": [
                        {
                            "part": "query",
                            "place": "limit",
                            "message": "Input should be less",
                            "kind": "less_than",
                        }
                    ],
                }
            ]
        },
    )

    type: str = Field(description="urn:crm:problem: and the code")
    title: str = Field(description="in the language of Accept-Language: zh or en")
    status: int
    code: str = Field(description="stable, kebab-case; programs decide by it")
    detail: str | None = None
    trace_id: str | None = Field(default=None, description="to be named when asking for help")
    errors: list[InvalidPart] | None = None
    reasons: list[str] | None = None


class RequestInvalid(Refusal):
    """The request is not what the interface describes."""

    code = "request-invalid"
    status = 422
    title = "The request is not what this route takes"
    title_zh = "请求内容不符合接口要求"


class RequestMalformed(Refusal):
    """The bytes of the request cannot be read at all."""

    code = "request-malformed"
    status = 400
    title = "The request cannot be read"
    title_zh = "请求无法解析"


class BodyOversized(Refusal):
    """The body has more bytes than the route takes."""

    code = "body-oversized"
    status = 413
    title = "The request body is larger than this route takes"
    title_zh = "请求正文超过上限"


class BodySlow(Refusal):
    """The body did not come in time."""

    code = "body-slow"
    status = 408
    title = "The request body did not come in time"
    title_zh = "请求正文接收超时"


class Unauthenticated(Refusal):
    """The request has no valid token."""

    code = "unauthenticated"
    status = 401
    title = "A valid token is needed"
    title_zh = "需要有效的访问令牌"


class Forbidden(Refusal):
    """The caller is known and has no role that may call the route."""

    code = "forbidden"
    status = 403
    title = "You may not do this"
    title_zh = "没有权限执行此操作"


class RouteUnknown(Refusal):
    """No route has this path."""

    code = "route-unknown"
    status = 404
    title = "There is nothing at this path"
    title_zh = "路径不存在"


class MethodNotAllowed(Refusal):
    """The path takes other methods."""

    code = "method-not-allowed"
    status = 405
    title = "This path does not take this method"
    title_zh = "该路径不支持此方法"


class MediaTypeUnsupported(Refusal):
    """The body is of a media type that the route does not take."""

    code = "media-type-unsupported"
    status = 415
    title = "The route does not take this media type"
    title_zh = "不支持该内容类型"


class ContentCodingUnsupported(Refusal):
    """The body has a content coding, such as gzip. No route takes one: a limit of bytes is one of the bytes that arrive."""

    code = "content-coding-unsupported"
    status = 415
    title = "The request body has a content coding, and is taken without one only"
    title_zh = "请求正文不得使用内容编码（Content-Encoding）"


class IdempotencyKeyMissing(Refusal):
    """A command without `Idempotency-Key` could happen twice."""

    code = "idempotency-key-missing"
    status = 400
    title = "Commands need an Idempotency-Key header"
    title_zh = "命令必须携带 Idempotency-Key 请求头"


class PreconditionMissing(Refusal):
    """An edit without `If-Match` could overwrite what the caller has not seen."""

    code = "if-match-missing"
    status = 428
    title = "Edits need an If-Match header with the ETag that was read"
    title_zh = "修改必须携带 If-Match 请求头"


class ViewBehind(Refusal):
    """The view did not reach the asked position in time."""

    code = "view-behind"
    status = 503
    title = "The view has not caught up yet; try again shortly"
    title_zh = "视图尚未更新到所需位置，请稍后重试"


class Unavailable(Refusal):
    """A server behind this one does not answer."""

    code = "unavailable"
    status = 503
    title = "A server behind this one does not answer; try again shortly"
    title_zh = "后端服务暂不可用，请稍后重试"


class TooManyStreams(Refusal):
    """The caller has as many open event streams as one caller may have."""

    code = "too-many-streams"
    status = 429
    title = "You have too many open event streams"
    title_zh = "您打开的事件流过多"


class Overloaded(Refusal):
    """The process has more requests at once than it takes."""

    code = "overloaded"
    status = 503
    title = "Too many requests at once; try again shortly"
    title_zh = "请求过多，请稍后重试"


class NotReady(Refusal):
    """The process has not started its work yet, or has ended it."""

    code = "not-ready"
    status = 503
    title = "Not ready"
    title_zh = "尚未就绪"


class Failed(Refusal):
    """An unexpected error in this process."""

    code = "internal-error"
    status = 500
    title = "Something went wrong on our side"
    title_zh = "服务内部错误"


_BY_STATUS: Final[dict[int, type[Refusal]]] = {
    each.status: each
    for each in (
        RequestMalformed,
        Unauthenticated,
        Forbidden,
        RouteUnknown,
        MethodNotAllowed,
        BodySlow,
        BodyOversized,
        MediaTypeUnsupported,
        Failed,
        Overloaded,
    )
}
_MISSING_HEADERS: Final[dict[str, type[Refusal]]] = {
    "idempotency-key": IdempotencyKeyMissing,
    "if-match": PreconditionMissing,
}
_LANGUAGE: Final = re.compile(
    r"\s*([A-Za-z*]{1,8})(?:-[A-Za-z0-9-]*)?\s*(?:;\s*q\s*=\s*([01](?:\.[0-9]{0,3})?))?\s*"
)


def language(accepted: str | None) -> Literal["zh", "en"]:
    """The language of titles by Accept-Language; English where neither is preferred."""
    if not accepted:
        return "en"
    wanted = {"zh": 0.0, "en": 0.0, "*": 0.0}
    for part in accepted[:200].split(","):
        found = _LANGUAGE.fullmatch(part)
        if found and found[1].lower() in wanted:
            name = found[1].lower()
            wanted[name] = max(wanted[name], float(found[2] or "1"))
    return "zh" if wanted["zh"] > max(wanted["en"], wanted["*"]) else "en"


def problem(
    refusal: Refusal | type[Refusal],
    accepted: str | None = None,
    *,
    status: int | None = None,
    detail: str | None = None,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """The response to a refusal."""
    tongue = language(accepted)
    told = detail if detail is not None else (str(refusal) if isinstance(refusal, Refusal) else "")
    number = status or refusal.status
    content: dict[str, Any] = {
        "type": f"urn:crm:problem:{refusal.code}",
        "title": refusal.title_zh if tongue == "zh" else refusal.title,
        "status": number,
        "code": refusal.code,
    }
    if told:
        content["detail"] = told[:DETAIL_CHARACTERS_MAX].encode("utf-8", "replace").decode()
    trace = telemetry.trace_id()
    if trace is not None:
        content["trace_id"] = trace
    content |= more
    sent = {"Content-Language": tongue, **(headers or {})}
    if number == 401:
        sent.setdefault("WWW-Authenticate", "Bearer")
    if refusal.code == ContentCodingUnsupported.code:
        sent.setdefault("Accept-Encoding", "identity")  # RFC 9110, 15.5.16
    if number == 503:
        sent.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    return Response(_encode(content), number, sent, MEDIA_TYPE)


def unreadable() -> bytes:
    """A response, head and body, to bytes that are not an HTTP request.

    It has neither a language nor a trace.
    """
    content = _encode(
        {
            "type": f"urn:crm:problem:{RequestMalformed.code}",
            "title": RequestMalformed.title,
            "status": RequestMalformed.status,
            "code": RequestMalformed.code,
            "detail": "this is no HTTP request",
        }
    )
    head = (
        f"HTTP/1.1 400 Bad Request\r\ncontent-type: {MEDIA_TYPE}\r\n"
        f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode("ascii") + content


def of_status(status: int) -> type[Refusal]:
    """The refusal that stands for a bare status of the framework."""
    return _BY_STATUS.get(status, RequestMalformed if status < 500 else Failed)


def of_invalid(request: Request, error: RequestValidationError) -> Response:
    """The errors of a request, by place and kind, without the values that were sent."""
    accepted = request.headers.get("accept-language")
    told = error.errors()
    for each in told:
        place = each["loc"]
        if each["type"] == "missing" and len(place) == 2 and place[0] == "header":
            missing = _MISSING_HEADERS.get(str(place[1]).lower())
            if missing is not None:
                return problem(missing, accepted)
    return problem(RequestInvalid, accepted, errors=[_part(each) for each in told[:ERRORS_TOLD_MAX]])


def _part(error: Mapping[str, Any]) -> dict[str, str]:
    place: Sequence[Any] = error["loc"]
    message = str(error["msg"])[:DETAIL_CHARACTERS_MAX].encode("utf-8", "replace").decode()
    inner = ".".join(str(each) for each in place[1:]).encode("utf-8", "replace").decode()
    return {"part": str(place[0]), "place": inner[:200], "message": message, "kind": str(error["type"])}


def refusals(*classes: type[Refusal]) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses=`: the refusals that this route may answer with, by status."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({each.status for each in classes}):
        codes = [f"`{each.code}`: {each.title}" for each in classes if each.status == status]
        found[status] = {"model": Problem, "description": "; ".join(codes)}
    return found
