"""The Lab in Chromium: what a visitor does, and what must follow."""

import json
import time

import pytest
from PIL import Image

pytestmark = pytest.mark.browser
# The address follows a new sample a moment after the paint.
IS_WRITTEN = (
    "new URLSearchParams(location.search).get('sample') === String(sreLab.bundle.sample.index)"
)
COLOURS = """(canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(data.buffer)).size;
}"""


# What is there at once


def test_opens_on_a_result_and_asks_nobody_else(new_page):
    page = new_page().open()
    assert page.words("headline").startswith("Over the full turn")
    assert "test image 0, labelled" in page.words("subject")
    assert page.tab.locator(".lab-model").count() == 3
    assert page.tab.locator(".lab-bar").count() == 3 * 8
    hosts = {r.url.split("/")[2] for r in page.requests if r.url.startswith("http")}
    assert hosts == {page.address.split("/")[2]}
    assert page.problems == []


def test_says_why_it_opens_on_a_sample(new_page):
    page, why = new_page(), "This image was chosen. The CNN errs & <b>turns</b>."

    def choose_another(route):
        reply = route.fetch()
        text = reply.text()
        if '"start"' in text:
            found = json.loads(text)
            found["start"] |= {"sample": 7, "note": why}
            text = json.dumps(found)
        route.fulfill(response=reply, body=text)

    page.tab.route("**/component_server/", choose_another)
    page.open()
    assert page.get("sreLab.bundle.sample.index") == 7
    assert page.words("notices").startswith(why)
    page.wait(IS_WRITTEN)
    # Whoever asks for a sample knows why.
    page.tab.reload()
    page.wait_ready()
    assert page.get("sreLab.bundle.sample.index") == 7
    assert page.words("notices") == ""
    page.open("dataset=digits")
    assert page.get("sreLab.bundle.sample.index") == 0
    assert page.words("notices") == ""
    # What was said of one sample does not stay with the next.
    page.open("dataset=cells")
    assert page.words("notices").startswith(why)
    page.tab.get_by_role("button", name="All samples").click()
    page.tab.locator("[data-ref=galleryIndex]").fill("5")
    page.tab.get_by_role("button", name="Show", exact=True).click()
    page.wait("sreLab.bundle.sample.index === 5")
    assert page.words("notices") == ""


def test_says_what_it_waits_for(new_page):
    page = new_page()
    page.tab.route("**/component_server/", lambda route: None)  # never answers
    page.tab.goto(page.address)
    page.tab.locator(".lab").wait_for()
    assert "Loading" in page.words("headline")
    assert page.tab.locator("[data-ref=result]").get_attribute("aria-busy") == "true"


# Turning: every position painted, nothing asked


def test_drag_paints_every_position_without_a_request(page):
    box = page.tab.locator("#lab-angle").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.tab.mouse.move(box["x"] + 14, middle)
    page.tab.mouse.down()
    before = page.get("sreLab.paints")
    angles = set()
    for step in range(1, 60):
        page.tab.mouse.move(box["x"] + 14 + step * (box["width"] - 28) / 59, middle)
        angles.add(page.angle)
    page.tab.mouse.up()
    page.tab.wait_for_timeout(500)
    assert page.angle >= 350
    assert len(angles) > 40
    assert page.get("sreLab.paints") - before >= len(angles)
    assert page.asked() == []


def test_paints_fifty_positions_a_second(page):
    took_ms = page.get("""new Promise((done) => {
        const slider = document.querySelector("#lab-angle");
        const began = performance.now();
        for (let i = 1; i <= 144; i += 1) {
          slider.value = (i * 5) % 360;
          slider.dispatchEvent(new Event("input"));
        }
        requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
    })""")
    assert took_ms / 144 < 20


def test_every_position_shows_other_pixels(page):
    """The picture, the maps and the bars follow the angle."""
    looks = """[...document.querySelectorAll(".lab-map canvas, [data-ref=dialImage]")]
        .map((canvas) => canvas.toDataURL()).join()"""
    seen = set()
    for _ in range(4):
        seen.add(page.get(looks))
        page.tab.get_by_role("button", name="Step forward 5 degrees").click()
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("keys", "angle"),
    [
        (["ArrowRight"], 5), (["ArrowUp", "ArrowUp"], 10), (["ArrowLeft"], 355),
        (["PageUp"], 90), (["PageUp", "PageUp", "ArrowDown"], 175), (["PageDown"], 270),
        (["End"], 355), (["End", "ArrowRight"], 0), (["PageUp", "Home"], 0),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_keyboard_turns(page, keys, angle):
    page.tab.locator("#lab-angle").focus()
    for key in keys:
        page.tab.keyboard.press(key)
    assert page.angle == angle
    assert page.tab.locator("#lab-angle").get_attribute("aria-valuetext").startswith(f"{angle} deg")
    assert page.asked() == []


def test_snap_and_step_buttons(page):
    page.tab.get_by_role("button", name="180°", exact=True).click()
    assert page.angle == 180
    page.tab.get_by_role("button", name="Step back 5 degrees").click()
    assert page.angle == 175


def test_image_can_be_grabbed_and_turned(page):
    box = page.tab.locator("[data-ref=dial]").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.tab.mouse.move(x + 60, y)
    page.tab.mouse.down()
    page.tab.mouse.move(x + 42, y - 42, steps=4)
    assert page.angle == 45  # from the right to the upper right: counter-clockwise
    page.tab.mouse.move(x, y - 60, steps=4)
    page.tab.mouse.up()
    assert page.angle == 90
    page.tab.mouse.move(x + 60, y)
    assert page.angle == 90
    assert page.asked() == []


def test_plot_can_be_dragged(page):
    plot = page.tab.locator("[data-ref=straight] svg.lab-plot")
    plot.click(position={"x": plot.bounding_box()["width"] / 2 + 16, "y": 60})
    assert abs(page.angle - 180) <= 5


def test_play_turns_until_pause(page):
    play = page.tab.locator("[data-ref=play]")
    play.click()
    assert play.inner_text() == "Pause"
    page.wait("sreLab.angle >= 30")
    play.click()
    stopped = page.angle
    page.tab.wait_for_timeout(300)
    assert page.angle == stopped
    assert page.asked() == []


def test_play_is_slow_for_those_who_want_less_motion(new_page):
    page = new_page(reduced_motion="reduce").open()
    page.tab.locator("[data-ref=play]").click()
    page.tab.wait_for_timeout(1000)
    assert page.angle <= 5


# Pickers


def test_pickers_repaint_without_a_request(page):
    before = page.tab.locator(".lab-map canvas").first.evaluate("(c) => c.width")
    page.tab.locator("[data-ref=stagePicker]").get_by_text("4", exact=True).click()
    page.wait(f"document.querySelector('.lab-map canvas').width !== {before}")
    page.tab.locator("[data-ref=channelPicker]").get_by_text("3", exact=True).click()
    page.tab.get_by_text("difference to 0°", exact=True).click()
    ends = page.tab.locator("[data-ref=featureRow] .lab-ends").inner_text().split()
    assert float(ends[0]) == -float(ends[1])
    assert page.query() | {"stage": "stage4", "channel": "3", "maps": "difference"} == page.query()
    assert page.asked() == []


def test_small_maps_choose_the_channel(page):
    page.tab.locator(".lab-strip canvas").nth(5).click()
    assert page.query()["channel"] == "5"


def test_difference_is_blank_upright(page):
    page.tab.get_by_text("difference to 0°", exact=True).click()
    large = page.tab.locator("[data-ref=featureRow] .lab-map canvas").first
    assert large.evaluate(COLOURS) == 2  # the middle of the scale, and nothing outside the disc


def test_other_class_is_explained_on_request(page):
    page.tab.locator("[data-ref=target]").select_option("3")
    page.wait_ready()
    assert len([r for r in page.asked() if r.startswith("POST")]) == 1
    assert page.get("sreLab.bundle.models.every((model) => model.target === 3)")
    assert page.query()["target"] == "3"


def test_protocol_changes_what_the_networks_see(page):
    page.tab.locator("[data-ref=protocol]").get_by_text("paper").click()
    page.wait_ready()
    assert page.get("sreLab.bundle.protocol.name") == "paper"
    assert page.query()["protocol"] == "paper"


# Decoding: what is large first, and then the single channels

# Holds back pictures from the eighth on: first come the turned image, three means and three CAMs.
HOLD = """(() => {
    const decode = window.createImageBitmap.bind(window);
    let [count, release] = [0, null];
    const gate = new Promise((resolve) => { release = resolve; });
    window.decoding = { end: (problem) => release(problem) };
    window.createImageBitmap = async (...given) => {
        count += 1;
        const problem = count > 7 ? await gate : null;
        if (problem) throw new Error(problem);
        return decode(...given);
    };
})()"""


@pytest.fixture
def decoding_page(new_page):
    """The page on its first sample, whose single channels are still being decoded."""
    page = new_page(height=1600)  # with the maps in sight
    page.tab.add_init_script(HOLD)
    yield page
    assert page.problems == []


def large_map(page) -> str:
    return page.get("document.querySelector('.lab-map canvas').toDataURL()")


def channel_maps(page) -> list[int]:
    """How many colours the nine small maps of the first network have."""
    return (
        page.tab.locator(".lab-strip")
        .first.locator("canvas")
        .evaluate_all(f"(all) => all.map({COLOURS})")
    )


def test_a_sample_is_painted_before_its_single_channels(decoding_page):
    page = decoding_page.open("maps=difference&angle=45")
    assert page.tab.locator(".lab-map canvas").first.evaluate(COLOURS) > 2
    page.tab.locator("#lab-angle").focus()
    page.tab.keyboard.press("PageUp")
    mean, *channels = channel_maps(page)
    assert mean > 2
    assert channels == [1] * 8  # blank
    page.get("decoding.end()")
    page.tab.wait_for_function(
        f"() => ({COLOURS})(document.querySelectorAll('.lab-strip canvas')[8]) > 1"
    )
    assert min(channel_maps(page)) > 1
    assert page.angle == 135


def test_a_channel_chosen_early_comes_when_it_is_decoded(decoding_page):
    page = decoding_page.open()
    before = large_map(page)
    page.tab.locator(".lab-strip canvas").nth(3).click()
    page.get("document.body.classList.toggle('dark')")  # labels everything anew
    page.tab.wait_for_timeout(300)
    assert large_map(page) == before
    page.get("decoding.end()")
    page.wait("document.querySelectorAll('.lab-strip canvas')[3].matches('.is-chosen')")
    page.tab.wait_for_function(  # it is painted just after
        "(before) => document.querySelector('.lab-map canvas').toDataURL() !== before", arg=before
    )
    assert page.query()["channel"] == "3"


def test_a_link_to_a_channel_waits_for_it(decoding_page):
    page = decoding_page
    page.tab.goto(f"{page.address}?channel=2")
    page.wait("sreLab.ticket === 1")
    page.tab.wait_for_timeout(500)
    assert not page.get("sreLab.isReady")
    page.get("decoding.end()")
    page.wait_ready()
    assert min(channel_maps(page)) > 1


def test_a_stage_chosen_early_replaces_the_other(decoding_page):
    page = decoding_page.open()
    page.tab.locator("[data-ref=stagePicker]").get_by_text("4", exact=True).click()
    page.tab.locator("#lab-angle").focus()
    page.tab.keyboard.press("PageUp")
    page.get("decoding.end()")
    page.wait("document.querySelector('.lab-map canvas').width === 4")
    assert min(channel_maps(page)) > 1
    assert page.angle == 90


def test_channels_that_cannot_be_decoded_are_named_and_the_rest_stays(decoding_page):
    page = decoding_page.open()
    before = large_map(page)
    page.get("decoding.end('a broken picture')")
    page.tab.locator("[role=alert]", has_text="cannot be decoded (a broken picture)").wait_for()
    page.tab.locator("[data-ref=channelPicker]").get_by_text("3", exact=True).click()
    page.wait("document.querySelector('[name=lab-channel]').checked")  # the mean again
    assert large_map(page) == before
    page.tab.locator("#lab-angle").focus()
    page.tab.keyboard.press("PageUp")
    assert page.angle == 90


# Out of sight


def test_what_is_out_of_sight_follows_when_the_turning_rests(new_page):
    page = new_page(height=500).open()
    page.tab.wait_for_timeout(400)
    before, at_once = page.get("""(() => {
        const slider = document.querySelector("#lab-angle");
        const look = () => document.querySelector("[data-ref=camRow] .lab-map canvas").toDataURL();
        const before = look();
        slider.value = 90;
        slider.dispatchEvent(new Event("input"));
        return [before, look()];
    })()""")
    assert at_once == before
    page.tab.wait_for_function(
        "(before) => document.querySelector('[data-ref=camRow] .lab-map canvas').toDataURL()"
        " !== before",
        arg=before,
    )


def test_what_comes_into_sight_is_up_to_date(new_page):
    page = new_page(height=500).open()
    page.tab.locator("[data-ref=play]").click()  # turns on and on, without a rest
    page.wait("sreLab.angle >= 30")
    page.tab.locator("[data-ref=equivariance]").scroll_into_view_if_needed()
    page.tab.wait_for_timeout(300)
    marker = "document.querySelector('[data-ref=straight] .lab-marker').getAttribute('x1')"
    before = page.get(marker)
    page.wait(f"{marker} !== '{before}'")
    assert page.problems == []


# Samples


SLOW_NET = """() => {
    const fetchAtOnce = window.fetch;
    window.fetch = async (...args) => {
        await new Promise((resolve) => setTimeout(resolve, 1000));
        return fetchAtOnce(...args);
    };
}"""


def test_gallery_by_class_and_by_index(page):
    page.tab.get_by_role("button", name="All samples").click()
    page.tab.locator(".lab-thumb").nth(5).wait_for()
    page.tab.evaluate(SLOW_NET)
    page.tab.locator("[data-ref=galleryClass]").select_option("2")
    page.tab.locator(".lab-thumb").first.click()  # one of before takes no click
    page.wait("sreLab.bundle.sample.label === 2")
    page.tab.locator("[data-ref=galleryIndex]").fill("123")
    page.tab.get_by_role("button", name="Show", exact=True).click()
    page.wait("sreLab.bundle.sample.index === 123")
    page.tab.locator("[data-ref=galleryIndex]").fill("999999")
    page.tab.get_by_role("button", name="Show", exact=True).click()
    assert "0 to" in page.words("errors")
    assert page.get("sreLab.bundle.sample.index") == 123


def test_random_sample(page):
    page.tab.get_by_role("button", name="Random").click()
    page.wait("sreLab.bundle.sample.index !== 0")
    page.wait(IS_WRITTEN)
    assert page.query()["sample"] == str(page.get("sreLab.bundle.sample.index"))


def test_wrong_samples_are_found_or_said_not_to_be(page):
    for name in ("CNN wrong when turned", "SRE wrong"):
        button = page.tab.get_by_role("button", name=name)
        button.click()
        page.tab.wait_for_function(
            "() => document.querySelector('[data-ref=errors], [data-ref=notices]')"
            " && !document.querySelector('[data-find][aria-busy]')",
            timeout=60_000,
        )
        page.wait_ready()
        page.tab.wait_for_timeout(100)
        assert page.words("errors") or page.words("notices")


def test_other_data_set_with_its_classes(page):
    page.tab.get_by_role("button", name="Data set").click()
    page.tab.get_by_role("button", name="Digits").click()
    page.wait("sreLab.bundle.dataset.name === 'digits'")
    assert page.tab.locator(".lab-bar").count() == 3 * 10
    assert page.query()["dataset"] == "digits"


def test_missing_sets_offer_a_download_or_a_command(page):
    page.tab.get_by_role("button", name="Data set").click()
    card = page.tab.locator(".lab-card", has_text="BreastMNIST")
    assert card.get_by_role("button", name="Download").is_visible()
    link = card.get_by_role("link", name="train a network")
    assert link.get_attribute("href") == "./train?dataset=breastmnist"
    assert "MB" in card.inner_text() or "kB" in card.inner_text()


def test_download_shows_progress_and_its_failure(page):
    cause = "breastmnist.npz could not be fetched; copy it into the data folder"
    steps = iter([
        {"state": "running", "done": 0, "total": None, "message": "waiting for the server"},
        {"state": "running", "done": 200_000, "total": 559_580, "message": ""},
        {"state": "error", "done": 0, "total": None, "message": cause},
    ])  # fmt: skip

    def answer(route):
        if "download" in json.loads(route.request.post_data)["fn_name"]:
            route.fulfill(json=next(steps))
        else:
            route.continue_()

    page.tab.route("**/component_server/", answer)
    page.tab.get_by_role("button", name="Data set").click()
    card = page.tab.locator(".lab-card", has_text="BreastMNIST")
    card.get_by_role("button", name="Download").click()
    card.get_by_text("200 kB of 560 kB").wait_for()
    page.tab.locator("[role=alert]", has_text=cause).wait_for()
    assert card.get_by_role("button", name="Download").is_enabled()


# Uploads


def test_own_image_is_shown_as_such(page, tmp_path):
    path = tmp_path / "<img src=x onerror=alert(1)>.png"
    Image.linear_gradient("L").resize((300, 200)).save(path)
    page.tab.locator("input[type=file]").set_input_files(path)
    page.wait("sreLab.bundle.sample.source === 'upload'")
    assert "not from Drawn cells" in page.words("subject")
    assert "<img src=x" in page.words("notices")  # as words, not as markup
    assert page.tab.locator(".lab-true").count() == 0
    assert "the explained class" in page.words("turnCaption")
    assert page.tab.locator(".lab-verdict").all_inner_texts() == ["", "", ""]


def test_own_image_survives_a_reload_and_going_back(page, late_lab, tmp_path):
    path = tmp_path / "own.png"
    Image.linear_gradient("L").save(path)
    page.tab.locator("input[type=file]").set_input_files(path)
    page.wait("sreLab.bundle.sample.source === 'upload'")
    page.query()
    page.tab.reload()
    page.wait_ready()
    assert page.get("sreLab.bundle.sample.source") == "upload"
    page.tab.get_by_role("button", name="Random").click()
    page.wait("sreLab.bundle.sample.source !== 'upload'")
    page.query()
    page.tab.go_back()
    page.wait("sreLab.bundle.sample.source === 'upload'")
    late_lab()._uploads.clear()  # as after a restart of the server
    page.tab.reload()
    page.wait_ready()
    page.wait("sreLab.bundle.sample.source !== 'upload'")
    assert "no longer kept on the server" in page.words("notices")
    assert page.words("errors") == ""


def test_broken_file_gets_one_sentence_and_the_result_stays(page, tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n not really")
    headline = page.words("headline")
    page.tab.locator("input[type=file]").set_input_files(path)
    page.tab.locator("[role=alert]", has_text="no picture").wait_for()
    assert page.words("headline") == headline
    page.tab.get_by_role("button", name="Dismiss").click()
    assert page.words("errors") == ""


def test_too_large_a_file_is_not_even_sent(page, tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(bytes(21_000_000))
    page.tab.locator("input[type=file]").set_input_files(path)
    page.tab.locator("[role=alert]", has_text="at most 20 MB").wait_for()
    assert page.asked() == []


# The address


def test_link_restores_the_state(new_page):
    query = (
        "dataset=digits&sample=7&angle=135&stage=stage3&channel=4&protocol=paper&maps=turned-back"
    )
    page = new_page().open(query)
    assert page.angle == 135
    assert page.get("sreLab.bundle.dataset.name + sreLab.bundle.sample.index") == "digits7"
    for value in ("stage3", "4", "turned-back", "paper"):
        assert page.tab.locator(f".lab input[value='{value}']:checked").count() >= 1
    expected = dict(pair.split("=") for pair in query.split("&"))
    assert {k: page.query()[k] for k in expected} == expected
    assert page.words("notices") == ""


@pytest.mark.parametrize(
    ("query", "said", "angle"),
    [
        ("dataset=nonsense", "nonsense", 0),
        ("dataset=bloodmnist", "not on disk", 0),
        ("dataset=organmnist3d", "volumes", 0),
        ("sample=99999999", "99999999", 0),
        ("sample=-3", "-3", 0),
        ("sample=abc", "abc", 0),
        ("angle=37", "37", 35),
        ("angle=-90", "-90", 270),
        ("angle=1e9999", "1e9999", 0),
        ("angle=1e308", "1e308", 295),
        ("stage=stage9", "stage9", 0),
        ("channel=12", "12", 0),
        ("protocol=mine", "mine", 0),
        ("target=77", "77", 0),
        ("dataset=%3Cimg%20src=x%20onerror=alert(1)%3E", "<img src=x", 0),
    ],
)
def test_wrong_values_are_named_and_the_nearest_shown(new_page, query, said, angle):
    page = new_page().open(query)
    assert said in page.words("notices")
    assert page.angle == angle
    assert page.words("headline").startswith("Over the full turn")
    page.tab.get_by_role("button", name="Dismiss").first.click()
    assert page.words("notices") == ""
    assert page.problems == []


def test_back_returns_to_the_sample_before(page):
    page.tab.locator("#lab-angle").focus()
    page.tab.keyboard.press("PageUp")
    assert page.query()["angle"] == "90"
    page.tab.get_by_role("button", name="Random").click()
    page.wait("sreLab.bundle.sample.index !== 0")
    page.wait(IS_WRITTEN)
    page.tab.go_back()
    page.wait("sreLab.bundle.sample.index === 0")
    assert page.angle == 90
    page.tab.go_forward()
    page.wait("sreLab.bundle.sample.index !== 0")


# When answers come late, or not at all


def test_late_reply_does_not_overwrite_a_newer_choice(page):
    held = []

    def hold_the_first(route):
        request = json.loads(route.request.post_data)
        if request["fn_name"] == "get_orbit" and request["data"]["sample"] == 5:
            held.append(route)
        else:
            route.continue_()

    page.tab.route("**/component_server/", hold_the_first)
    page.tab.get_by_role("button", name="All samples").click()
    page.tab.locator("[data-ref=galleryIndex]").fill("5")
    page.tab.get_by_role("button", name="Show", exact=True).click()
    page.tab.locator("[data-ref=galleryIndex]").fill("6")
    page.tab.get_by_role("button", name="Show", exact=True).click()
    page.wait("sreLab.bundle.sample.index === 6")
    held[0].continue_()
    page.tab.wait_for_timeout(1500)
    assert page.get("sreLab.bundle.sample.index") == 6
    assert page.words("errors") == ""


def test_silent_server_is_named_and_the_result_stays(page):
    page.tab.route("**/component_server/", lambda route: route.abort())
    headline = page.words("headline")
    page.tab.get_by_role("button", name="Random").click()
    page.tab.locator("[role=alert]", has_text="does not answer").wait_for()
    assert page.words("headline") == headline
    page.tab.locator("#lab-angle").focus()
    page.tab.keyboard.press("PageUp")
    assert page.angle == 90


def test_cached_sample_is_painted_at_once(page):
    """Measured, not judged by the second: a loaded machine must not fail it."""
    page.tab.get_by_role("button", name="Random").click()
    page.wait("sreLab.bundle.sample.index !== 0")
    page.wait(IS_WRITTEN)
    page.asked()
    began = time.monotonic()
    page.tab.go_back()
    page.wait("sreLab.bundle.sample.index === 0")
    assert time.monotonic() - began < 5
    assert page.asked() == []
