"""`search serve`: options, keys, and addresses that others reach."""

import http.client
import json
import re
import signal
import subprocess
import sys

import pytest

from make_jax.cli.search import main
from make_jax.cli.search_serve import ServeOptions, is_loopback, settings_of
from make_jax.errors import InputError
from make_jax.serving.http.api_keys import VARIABLE, add_key, read_keys
from make_jax.serving.http.settings import LOOPBACK_HOSTS
from tests.cli.test_search_index import MODEL
from tests.conftest import ROOT
from tests.tiny_catalog import write_catalog


@pytest.fixture(autouse=True)
def no_keys_in_the_environment(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "70000"], "--port is 70000, expected 0 to 65535"),
        (["--rate-limit", "-1"], "--rate-limit is -1, expected 0 to 1,000,000"),
        (["--max-upload-mb", "0"], "--max-upload-mb is 0, expected 0.1 to 1,000,000"),
        (["--reload-seconds", "nan"], "--reload-seconds is nan, expected 0.05 to 1,000,000"),
        (["--prot", "1"], "unknown option --prot; did you mean --port?"),
        (["--new-key", "shop"], "--new-key needs --api-keys, the file that the key's hash is added to"),
        (["--host", "0.0.0.0"], "--host is 0.0.0.0, which other machines reach, and there are no API keys; add one: "),
        (["--host", "::"], "--host is ::, which other machines reach, and there are no API keys; "),
        (["--port", "0", "--compare", "v2"], "nowhere: not an index, expected a folder that `search.py index` wrote"),
        (["--port", "0"], "nowhere: not an index, expected a folder that `search.py index` wrote"),
    ],
)
def test_wrong_options_are_one_error(words, message):
    with pytest.raises(InputError) as error:
        main(["serve", "nowhere", *words])
    assert str(error.value).startswith(message)


def test_a_new_key_is_printed_once_and_stored_as_a_hash(tmp_path, capsys):
    path = str(tmp_path / "keys")
    assert main(["serve", "nowhere", "--new-key", "shop", "--api-keys", path]) is None
    key = capsys.readouterr().out.strip()
    assert re.fullmatch(r"[\w-]{43}", key) and read_keys(path).name(key) == "shop"


def test_only_loopback_needs_no_keys():
    for host in ("127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"):
        assert is_loopback(host)
    for host in ("0.0.0.0", "::", "10.0.0.1", "shop.example", ""):
        assert not is_loopback(host)


def test_hosts_and_rate_limit_follow_from_the_keys(tmp_path):
    alone = settings_of(ServeOptions("index"))
    assert (alone.allowed_hosts, alone.rate_limit, len(alone.keys)) == (LOOPBACK_HOSTS, 0.0, 0)
    more = settings_of(ServeOptions("index", allowed_host=("a.example",)))
    assert more.allowed_hosts == (*LOOPBACK_HOSTS, "a.example")
    add_key(tmp_path / "keys", "shop")
    public = settings_of(ServeOptions("index", host="0.0.0.0", api_keys=str(tmp_path / "keys"), max_upload_mb=2.0))
    assert (public.allowed_hosts, public.rate_limit, len(public.keys)) == ((), 100.0, 1)
    assert public.max_upload_bytes == 2_000_000


def test_two_versions_of_an_index_are_served_until_sigterm(tmp_path):
    catalog, index = str(write_catalog(tmp_path / "tiny", products=20, queries=4)), str(tmp_path / "index")
    main(["index", MODEL, catalog, index])
    main(["index", MODEL, catalog, index, "--lexical-weight", "0.5", "--no-switch"])
    command = [sys.executable, str(ROOT / "search.py"), "serve", index, "--compare", "v2", "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        lines = []
        while not (
            found := re.fullmatch(r"http://127\.0\.0\.1:(\d+) \(Ctrl-C stops\)\n", line := process.stderr.readline())
        ):
            assert line, "".join(lines)
            lines.append(line)
        assert lines[-1] == "comparing index (encoder_file, v1) with index-v2 (encoder_file, v2)\n"
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=20)
        for parameter, version in (("", "v1"), ("&index=index-v2", "v2")):
            connection.request("GET", f"/v1/search?q=red&limit=3{parameter}")
            content = json.loads(connection.getresponse().read())
            assert len(content["hits"]) == 3 and content["estimatedTotalHits"] == 20
            assert content["indexVersion"] == version
        connection.close()
        process.send_signal(signal.SIGTERM)
        errors = process.stderr.read()
        assert process.wait(20) == 0 and errors.splitlines()[-1] == "stopped; answered 2 requests"
    finally:
        process.kill()
        process.communicate()
