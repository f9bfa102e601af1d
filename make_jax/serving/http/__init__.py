"""The HTTP API of a search service, with the page at `/`. `app.create_app` makes it, `server.run` runs it.

Files:
    app.py              the FastAPI application: middleware and routes
    settings.py         limits and switches of a server
    context.py          what routes share; threads for blocking work
    search_routes.py    /v1/search, /v1/similar, /v1/suggest
    product_routes.py   /v1/index, /v1/products, /v1/click
    server_routes.py    /healthz, /readyz, /metrics, /errors, the page
    openapi.py          the OpenAPI description
    parameters.py       parameters of a search: query string, JSON, multipart; -> SearchRequest
    answers.py          SearchResponse -> JSON
    errors.py           the table of error codes, errors as JSON
    access.py           host, API key and rate limit of a request
    api_keys.py         hashed API keys
    rate_limit.py       requests a second of each client
    body_limit.py       size and time of a request's body
    request_log.py      request ids, JSON log lines, metrics, security headers
    metrics.py          Prometheus metrics
    clicks.py           clicks in the catalog's format
    connections.py      time of headers and of unread responses, number of connections
    server.py           uvicorn with graceful stop
"""
