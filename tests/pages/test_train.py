"""The Train page: its requests, and what a visitor sees of runs, whole and broken off."""

import json
from io import BytesIO

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from pages import train
from sre.errors import TrainingError
from sre.studies.estimate import Estimate
from sre.studies.job_settings import JobSettings
from sre.studies.jobs import Job, Status, make_job
from tests.data.files import breast
from tests.studies.test_jobs import REQUEST

AXE = Axe()


@pytest.fixture(autouse=True)
def _quick_estimates(monkeypatch):
    """Time is told without taking it."""
    estimate = Estimate(0.5, 30.0, 600.0)
    monkeypatch.setattr("sre.studies.trainer.estimate_apart", lambda *_, **__: estimate)


@pytest.fixture
def trainer(late_trainer, late_lab):
    """What stands behind the page; it has no jobs, and twelve images to train on."""
    made, file = late_trainer(), late_lab().data_dir / "breastmnist.npz"
    for job, _ in made.queue.jobs():
        job.remove()
    np.savez(file, **breast())
    yield made
    file.unlink()


@pytest.fixture
def broken_off(trainer) -> Job:
    """A run whose worker has died in its third epoch."""
    job = make_job(trainer.queue.folder, JobSettings.from_request(REQUEST | {"epochs": 9}))
    job.append({"kind": "planned", "epochs": 9, "parameters": 1, "multiply_adds": 1})
    for epoch in (1, 2):
        job.append(
            *({"kind": "step", "x": epoch - k / 8, "loss": 1 / (9 - k)} for k in range(7, -1, -1)),
            {
                "kind": "epoch", "epoch": epoch, "train_loss": 1 / epoch, "val_loss": 0.9 / epoch,
                "upright": 0.4 * epoch, "turned": 0.3 * epoch, "is_best": True, "seconds": 1.0,
            },
        )  # fmt: skip
    job.append({"kind": "halved", "epoch": 3, "batch_size": 2})
    job.write_status(Status("running", 1.0, phase="training", epoch=3, epochs=9, best_epoch=2))
    return job


@pytest.fixture
def open_train(new_page):
    """Open the page: open_train("job=...", width=390)."""
    opened = []

    def open_(query: str = "dataset=breastmnist", **settings):
        page = new_page(**settings)
        page.tab.goto(f"{page.address}train?{query}")
        page.tab.wait_for_function("() => window.sreTrain?.isReady")
        opened.append(page)
        return page

    yield open_
    for page in opened:
        assert page.problems == []


# requests that anyone may send


@pytest.mark.parametrize(
    ("name", "request_", "said"),
    [
        ("describe", {"settings": None}, "the settings lack dataset"),
        ("describe", {"settings": REQUEST | {"width": 1000}}, "width must be from 1 to 128"),
        ("estimate", {"settings": REQUEST, "ticket": "x", "session": 3}, "no session and ticket"),
        ("start", {"settings": REQUEST | {"model": "../x"}}, "unknown model '../x'"),
        ("start", [], "the request lacks settings"),
        ("follow", {"job": "../..", "since": 0}, "there is no run '../..'"),
        ("follow", {"job": [], "since": 0}, "a run's name must be a text"),
        ("stop", {"job": "x"}, "there is no run 'x'"),
        ("resume", {"job": "x"}, "there is no run 'x'"),
        ("remove", {"job": "x"}, "there is no run 'x'"),
    ],
)
def test_bad_requests_get_a_sentence(late_trainer, late_lab, name, request_, said):
    functions = {f.__name__: f for f in train.server_functions(late_trainer, late_lab)}
    reply = functions[name](request_)
    assert said in reply["error"]
    json.dumps(reply)


# in the browser


@pytest.mark.browser
def test_opens_on_a_preset_and_says_what_it_costs(trainer, open_train):
    page = open_train()
    assert page.words("headline").startswith("No run yet")
    assert page.words("example").startswith("An example: “Two minutes on a CPU”, SRE-CNN on cells.")
    assert page.tab.locator("[data-ref=plots] svg[role=img]").count() == 2
    assert page.words("presetWords").startswith("A narrow network")
    page.tab.wait_for_function("() => /about/.test(document.body.innerText)")
    costs = page.words("costs")
    assert "thousand" in costs
    assert "about 2 min, 3 epochs" in costs  # of 30 s each, within two minutes less a tenth
    page.tab.get_by_text("The network of the paper").click()
    assert "AdamW instead of SGD" in page.words("presetWords")
    assert page.tab.locator("[name=epochs]").input_value() == "100"
    page.tab.locator("[name=width]").fill("1000")
    page.tab.wait_for_function("() => /width must be/.test(document.body.innerText)")
    assert page.words("fault") == "width must be from 1 to 128, got 1000."
    assert page.tab.locator("[data-ref=presets] input:checked").count() == 0


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_checked_box_looks_checked(trainer, open_train, theme):
    page = open_train(f"__theme={theme}")
    page.tab.get_by_text("More settings").click()
    box = page.tab.locator("[name=blur_pools]")
    box.scroll_into_view_if_needed()
    empty = inside(box.screenshot())
    box.check()
    page.tab.mouse.move(0, 0)
    page.tab.wait_for_timeout(500)  # some browsers fade it in
    assert np.abs(inside(box.screenshot()) - empty).mean() > 50  # of 255
    page.tab.wait_for_function(
        "() => document.querySelector('[data-ref=command]').textContent.includes('--blur-pools')"
    )


@pytest.mark.browser
def test_settings_survive_a_reload_and_no_other_link(trainer, open_train):
    page = open_train()
    page.tab.locator("[name=width]").fill("7")
    page.tab.locator("[name=kernel_sizes]").fill("3 5 3 5")
    page.tab.locator("[name=rotate]").check()
    page.tab.reload()
    page.tab.wait_for_function("() => window.sreTrain?.isReady")
    assert page.tab.locator("[name=width]").input_value() == "7"
    assert page.tab.locator("[name=kernel_sizes]").input_value() == "3, 5, 3, 5"
    assert page.tab.locator("[name=rotate]").is_checked()
    assert page.words("presetWords") == "Settings of your own."
    page.tab.get_by_text("The network of the paper").click()
    page.tab.reload()
    page.tab.wait_for_function("() => window.sreTrain?.isReady")
    assert page.tab.locator("[data-ref=presets] input:checked").count() == 1
    assert page.tab.locator("[name=epochs]").input_value() == "100"
    page.tab.goto(f"{page.address}train?dataset=digits")
    page.tab.wait_for_function("() => window.sreTrain?.isReady")
    assert page.words("presetWords").startswith("A narrow network")


def inside(png: bytes) -> np.ndarray:
    """Colours of a picture without its frame."""
    picture = Image.open(BytesIO(png)).convert("RGB")
    return np.asarray(picture, dtype=float)[4:-4, 4:-4]


@pytest.mark.browser
def test_what_the_address_asks_for_in_vain_is_said(trainer, open_train):
    page = open_train(f"dataset={'x' * 99}&model=sre_unet")
    said = page.words("notices")
    assert f"data set “{'x' * 39}…”, which does not exist" in said
    assert "model “sre_unet”, which does not exist or is none for classes of images" in said
    assert "samples are volumes" in open_train("dataset=organmnist3d").words("notices")


@pytest.mark.browser
def test_wrong_kernel_sizes_are_told_as_they_were_written(trainer, open_train):
    page = open_train()
    page.tab.locator("[name=kernel_sizes]").fill("9, abc, 5, 5")
    page.tab.wait_for_function("() => /a kernel size must be/.test(document.body.innerText)")
    assert page.words("fault") == "a kernel size must be a whole number, got 'abc'."


@pytest.mark.browser
def test_a_second_press_starts_nothing(trainer, open_train, monkeypatch):
    monkeypatch.setattr("sre.studies.job_queue.JobQueue.pump", lambda self: None)
    page = open_train()
    for said in (0, 1):
        page.tab.get_by_role("button", name="Start training").click()
        page.tab.wait_for_function(
            f"() => document.querySelectorAll('[data-ref=notices] p').length === {said} "
            "&& sreTrain.state === 'queued' && !document.querySelector('[data-ref=start]').disabled"
        )
    assert "the same settings give the same network" in page.words("notices")
    assert len(trainer.queue.jobs()) == 1
    page.tab.get_by_role("button", name="Take out of the queue").click()
    page.tab.wait_for_function("() => /No run yet/.test(document.body.innerText)")
    page.tab.wait_for_function("() => document.activeElement?.dataset.ref === 'headline'")


@pytest.mark.browser
def test_a_run_that_another_page_removes_leaves_nothing_behind(broken_off, open_train):
    page = open_train(f"job={broken_off.name}")
    assert page.words("headline").startswith("It broke off")
    broken_off.remove()
    page.tab.wait_for_function("() => /No run yet/.test(document.body.innerText)")
    page.tab.wait_for_function("() => !document.querySelector('[data-ref=example]').hidden")
    assert page.tab.get_by_role("button", name="Resume").count() == 0
    assert "it may have been removed" in page.words("errors")


@pytest.mark.browser
def test_values_above_the_scale_are_marked(broken_off, open_train):
    broken_off.append(
        {
            "kind": "epoch", "epoch": 3, "train_loss": 0.3, "val_loss": 250.0,
            "upright": 0.5, "turned": 0.5, "is_best": False, "seconds": 1.0,
        },
        {
            "kind": "epoch", "epoch": 4, "train_loss": 0.2, "val_loss": 0.4,
            "upright": 0.5, "turned": 0.5, "is_best": False, "seconds": 1.0,
        },
    )  # fmt: skip
    page = open_train()
    plot = page.tab.locator("[data-ref=lossPlot] svg[role=img]")
    assert "above the scale: up to 250" in plot.text_content()
    assert plot.locator(".train-above").count() == 1


@pytest.mark.browser
def test_a_run_from_start_to_the_lab(trainer, open_train):
    page = open_train()
    for name, value in (("width", "1"), ("kernel_sizes", "3 3 3 3"), ("epochs", "3")):
        page.tab.locator(f"[name={name}]").fill(value)
    page.tab.get_by_role("button", name="Start training").click()
    page.tab.wait_for_function("() => window.sreTrain?.state === 'done'", timeout=90_000)
    assert page.words("headline").startswith("Done: ")
    assert page.get("sreTrain.epochs") == 3
    assert page.tab.locator("[data-ref=plots] svg[role=img]").count() == 2
    job = page.query()["job"]
    page.tab.reload()
    page.tab.wait_for_function("() => window.sreTrain?.isReady && sreTrain.state === 'done'")
    assert page.query()["job"] == job
    assert page.tab.get_by_role("link", name="Open in the Lab").is_visible()
    page.tab.get_by_role("button", name="Remove from the list").click()
    page.tab.wait_for_function("() => /No run yet/.test(document.body.innerText)")
    assert list(trainer.queue.output.glob("*.safetensors"))


@pytest.mark.browser
def test_what_broke_off_is_shown_and_offered_for_resuming(broken_off, open_train, monkeypatch):
    monkeypatch.setattr("sre.studies.job_queue.JobQueue.pump", lambda self: None)
    page = open_train()  # without its name: it is the newest
    assert page.words("headline").startswith(
        "It broke off after epoch 2. So far the best is epoch 2, with 80.0"
    )
    assert "batches of 2 images from there" in page.words("runNotes")
    assert "resuming goes on from the last whole epoch" in page.words("runNotes")
    label = page.tab.locator("[data-ref=accuracyPlot] svg[role=img]").get_attribute("aria-label")
    assert label == "Validation accuracy after epoch 2: 80.0 % upright, 60.0 % turned"
    page.tab.get_by_role("button", name="Resume").click()
    page.tab.wait_for_function("() => window.sreTrain?.state === 'queued'")
    page.tab.get_by_role("button", name="Take out of the queue").click()
    page.tab.wait_for_function("() => /No run yet/.test(document.body.innerText)")


@pytest.mark.browser
def test_failures_are_one_sentence(broken_off, open_train):
    broken_off.give_up(str(TrainingError("the loss became nan in epoch 3; try <b>less</b>")))
    page = open_train(f"job={broken_off.name}")
    assert "The loss became nan in epoch 3; try <b>less</b>." in page.words("runNotes")
    assert page.tab.get_by_role("button", name="Resume").is_visible()


@pytest.mark.browser
def test_an_address_without_its_run_says_so(trainer, open_train):
    page = open_train("job=nonsense")
    assert page.words("errors").startswith("there is no run 'nonsense'; it may have been removed")
    page.tab.wait_for_function("() => !location.search.includes('nonsense')")
    assert page.words("errors")


@pytest.mark.browser
def test_training_that_is_switched_off_is_said(broken_off, late_trainer, open_train):
    late_trainer().is_allowed = False
    try:
        page = open_train()
        assert page.words("off").startswith("training is switched off on this server")
        assert page.tab.get_by_role("button", name="Start training").is_disabled()
        assert page.tab.get_by_role("button", name="Resume").count() == 0
    finally:
        late_trainer().is_allowed = True


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1280, "dark")])
def test_narrow_and_dark(broken_off, open_train, width, scheme):
    page = open_train(width=width, color_scheme=scheme)
    assert page.get("document.documentElement.scrollWidth") <= width
    found = AXE.run(page.tab).response["violations"]
    assert [v["id"] for v in found if v["impact"] in {"serious", "critical"}] == []


@pytest.mark.browser
def test_the_keyboard_is_enough(broken_off, open_train):
    page = open_train()
    reached = set()
    for _ in range(40):
        page.tab.keyboard.press("Tab")
        reached.add(page.get("document.activeElement.name || document.activeElement.textContent"))
    assert {"dataset", "model", "width", "epochs", "minutes", "rotate", "Resume"} <= reached
