# Serves an index, also with a Qdrant server (compose.yaml). docs/serving.md#docker
FROM python:3.11-slim

RUN useradd --create-home --uid 10001 search
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY pyproject.toml setup.py README.md LICENSE search.py ./
COPY make_jax make_jax
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

USER search
EXPOSE 8000
HEALTHCHECK --start-period=2m --interval=10s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=5)"]
ENTRYPOINT ["python", "search.py"]
CMD ["serve", "/data/index", "--host", "0.0.0.0", "--api-keys", "/data/keys.json"]
