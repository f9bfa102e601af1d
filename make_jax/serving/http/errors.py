"""Errors of the HTTP API: the table of codes, and their JSON, which has the keys of Meilisearch's."""

from typing import NamedTuple

from starlette.responses import JSONResponse, Response

PAGE = "/errors"  # the page that describes the codes


class ErrorCode(NamedTuple):
    """One row of the table of error codes."""

    status: int  # of HTTP
    type: str  # as Meilisearch's: invalid_request, auth, internal or system
    meaning: str


_PARAMETERS = {
    "q": "The text is no string or too long.",
    "filter": "The filter cannot be parsed, or names an attribute that the index does not have.",
    "facets": "Not a list of attributes of the index.",
    "sort": "Not a list of attribute:asc or attribute:desc.",
    "limit": "Not an integer in the range.",
    "offset": "Not an integer in the range.",
    "page": "Not an integer in the range.",
    "hits_per_page": "Not an integer in the range.",
    "distinct": "Not an attribute of the index.",
    "max_per_value": "Not an integer in the range.",
    "ranking_score_threshold": "Not a number in the range.",
    "lexical_weight": "Not a number in the range.",
    "image": "Not a JPEG, PNG or WebP picture, damaged, too large, or the model does not encode pictures of queries.",
    "image_weight": "Not a number from 0 to 1.",
    "like": "Not a list of ids of products of the index.",
    "unlike": "Not a list of ids of products of the index.",
    "rerank": "Not an integer in the range, or the model has no matching encoder.",
    "correct": "Neither true nor false.",
    "explain": "Neither true nor false.",
    "retrieve_vectors": "Neither true nor false.",
    "index": "Not the name of an index.",
}

CODES: dict[str, ErrorCode] = {
    **{f"invalid_search_{name}": ErrorCode(400, "invalid_request", text) for name, text in _PARAMETERS.items()},
    "invalid_suggest_q": ErrorCode(400, "invalid_request", "The text is too long."),
    "invalid_suggest_limit": ErrorCode(400, "invalid_request", "Not an integer in the range."),
    "invalid_click": ErrorCode(400, "invalid_request", "Not an object of query, product and lang."),
    "bad_request": ErrorCode(400, "invalid_request", "An unknown parameter, or a request that cannot be answered."),
    "missing_payload": ErrorCode(400, "invalid_request", "The body is empty."),
    "malformed_payload": ErrorCode(400, "invalid_request", "The body is no valid JSON object or form."),
    "invalid_host": ErrorCode(400, "invalid_request", "The Host header names another server."),
    "missing_authorization_header": ErrorCode(401, "auth", "The server needs an API key: Authorization: Bearer KEY."),
    "invalid_api_key": ErrorCode(403, "auth", "The API key is wrong."),
    "not_found": ErrorCode(404, "invalid_request", "There is nothing at this address."),
    "document_not_found": ErrorCode(404, "invalid_request", "The index has no such product, or no picture of it."),
    "index_not_found": ErrorCode(
        404, "invalid_request", "The server has no index of this name; GET /v1/index lists them."
    ),
    "method_not_allowed": ErrorCode(405, "invalid_request", "The address exists, for another method."),
    "request_timeout": ErrorCode(408, "invalid_request", "The body did not arrive in time."),
    "payload_too_large": ErrorCode(413, "invalid_request", "The body is larger than the server accepts."),
    "invalid_content_type": ErrorCode(415, "invalid_request", "The body is neither JSON nor a multipart form."),
    "too_many_requests": ErrorCode(429, "invalid_request", "The client sends more requests a second than allowed."),
    "internal": ErrorCode(500, "internal", "A fault of the server; its log has the request id and the cause."),
    "too_many_search_requests": ErrorCode(503, "system", "Too many searches wait, or too many connections; try again."),
    "not_ready": ErrorCode(503, "system", "The server does not answer searches: it is stopping or faulty."),
}


class ApiError(Exception):
    """An error that a client sees: a code of CODES and one line."""

    def __init__(self, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.headers = code, message, headers


def error_response(error: ApiError) -> Response:
    """The error as JSON: message, code, type and link."""
    row = CODES[error.code]
    content = {"message": error.message, "code": error.code, "type": row.type, "link": f"{PAGE}#{error.code}"}
    return JSONResponse(content, row.status, error.headers)


def error_page() -> str:
    """HTML that describes all codes, with an id for each."""
    rows = "\n".join(
        f'<tr id="{code}"><th scope="row"><code>{code}</code></th><td>{row.status}</td><td>{row.meaning}</td></tr>'
        for code, row in CODES.items()
    )
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Errors</title>\n'
        '<meta name="viewport" content="width=device-width">\n<link rel="stylesheet" href="/page/style.css">\n'
        f'<main class="text">\n<h1>Errors</h1>\n<table>\n{rows}\n</table>\n</main>\n</html>\n'
    )
