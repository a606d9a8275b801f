"""The page's Python: requests that anyone may send, and the endpoint for scripts."""

import base64
import inspect
import io
import json

import gradio as gr
import pytest
from gradio.data_classes import DataWithFiles
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image

from pages import lab
from pages.component import replying
from pages.startup import import_gradio
from sre.errors import Dropped


@pytest.fixture(scope="session")
def functions(late_lab):
    return {function.__name__: function for function in lab.server_functions(late_lab)}


ORBIT = {
    "dataset": "cells", "sample": 3, "upload": None, "protocol": "disc", "target": None,
    "ticket": 1, "session": "",
}  # fmt: skip


def png(side: int = 40) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((side, side)).save(out, "PNG")
    return out.getvalue()


def test_catalogue_names_every_set_and_where_to_start(functions):
    found = functions["get_catalogue"]([])
    assert len(found["datasets"]) == 20
    assert found["start"]["dataset"] == "cells"  # nothing else is on disk
    json.dumps(found)


def test_orbit_reply_is_json_of_at_most_400_kb(functions):
    text = functions["get_orbit"](ORBIT)["bundle"]
    assert len(text) <= 400_000
    found = json.loads(text)
    assert [model["arm"] for model in found["models"]] == ["sre", "plain", "augmented"]


def test_gallery_pages(functions):
    request = {"dataset": "cells", "label": 1, "offset": 5, "limit": 10}
    found = functions["get_gallery"](request)
    assert [item["label"] for item in found["items"]] == [1] * 10
    assert found["sheet"]["count"] == 10


def test_upload_becomes_an_orbit(functions):
    taken = functions["take_upload"](
        DataWithFiles(data={"dataset": "cells"}, files=[("a.png", png())])
    )
    found = functions["get_orbit"](ORBIT | {"sample": None, "upload": taken["token"]})
    assert found["sample"]["source"] == "upload"
    assert found["sample"]["label"] is None


@pytest.mark.parametrize(
    ("name", "request_", "said"),
    [
        ("get_orbit", ORBIT | {"dataset": "nonsense"}, "nonsense"),
        ("get_orbit", ORBIT | {"sample": -1}, "-1"),
        ("get_orbit", ORBIT | {"protocol": "mine"}, "mine"),
        ("get_orbit", ORBIT | {"target": 99}, "99"),
        ("get_orbit", ORBIT | {"upload": "../../etc/passwd"}, "choose the file again"),
        ("get_orbit", {}, "lacks dataset"),
        ("get_orbit", None, "lacks dataset"),
        ("get_orbit", "cells", "lacks dataset"),
        ("get_gallery", {"dataset": "cells", "label": 99, "offset": 0, "limit": 5}, "99"),
        ("find_sample", {"dataset": "cells", "kind": "odd", "after": 0, "protocol": "disc"}, "odd"),
        ("take_upload", {"path": "/etc/passwd"}, "no file"),
        (
            "take_upload",
            DataWithFiles(data={"dataset": "cells"}, files=[("a.png", b"no picture")]),
            "no picture",
        ),
        ("start_download", {"dataset": "nonsense"}, "nonsense"),
        ("get_download", {}, "lacks dataset"),
    ],
)
def test_bad_request_gets_a_sentence(functions, name, request_, said):
    reply = functions[name](request_)
    assert list(reply) == ["error"]
    assert said in reply["error"]


def test_dropped_request_is_no_error():
    @replying
    def give_up(request):
        raise Dropped("nobody waits")

    assert give_up({}) == {"dropped": True}


def test_bug_is_not_hidden():
    @replying
    def fail(request):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        fail({})


def test_page_builds_in_a_blocks_without_the_studies():
    def never():
        raise AssertionError("the Lab was made before anybody asked")

    with gr.Blocks() as demo:
        lab.build(never)
    assert any(isinstance(block, gr.HTML) for block in demo.blocks.values())


def test_named_endpoint_is_a_contract(server):
    client = Client(server, verbose=False)
    try:
        described = client.view_api(return_format="dict")["named_endpoints"]
        assert list(described) == ["/orbit"]
        names = [p["parameter_name"] for p in described["/orbit"]["parameters"]]
        assert names == ["dataset", "sample", "protocol", "target"]
        bundle = client.predict(dataset="cells", sample=3, api_name="/orbit")
        assert len(bundle["angles_deg"]) == 72
        for model in bundle["models"]:
            assert len(model["probabilities"]) == len(model["predictions"]) == 72
            for stage in model["stages"]:
                assert stage["features"]["count"] == 8 * 72
                assert len(stage["channels"]) == 1 + 8
                assert stage["mean"]["count"] == 72
                sheet = stage["cam"]["src"].partition(",")[2]
                assert Image.open(io.BytesIO(base64.b64decode(sheet))).format in {"AVIF", "WEBP"}
        with pytest.raises(AppError, match="nonsense"):
            client.predict(dataset="nonsense", sample=3, api_name="/orbit")
    finally:
        client.close()


def test_fast_import_leaves_inspect_as_it_was():
    getfile = inspect.getfile
    assert import_gradio() is gr
    assert inspect.getfile is getfile
