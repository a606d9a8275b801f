// Everything that turns the image: the slider, the keyboard, the buttons, Play, and the image itself.

const PLAY_DEG_PER_S = 60;
const QUIET_STEP_S = 0.7; // a position, for those who asked their system for less motion

/** Wire the controls. `turnTo(angleDeg)` paints at once; `angle()` is the position now. */
function connectTurning(ui, { turnTo, angle }) {
  const prefersLess = window.matchMedia("(prefers-reduced-motion: reduce)");
  let playing = null; // { frame, from, since } while Play runs

  function turnBy(stepDeg) {
    pause();
    turnTo(wrapAngle(angle() + stepDeg));
  }

  ui.slider.addEventListener("input", () => {
    pause();
    turnTo(Number(ui.slider.value));
  });

  const keys = {
    ArrowRight: () => turnBy(5), ArrowUp: () => turnBy(5), ArrowLeft: () => turnBy(-5), ArrowDown: () => turnBy(-5),
    PageUp: () => turnBy(90), PageDown: () => turnBy(-90),
    Home: () => { pause(); turnTo(0); }, End: () => { pause(); turnTo(355); },
  };
  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }
  ui.transport.addEventListener("keydown", onKey);
  // With nothing in focus the sideways arrows turn too; the others stay the browser's, for scrolling.
  document.addEventListener("keydown", (event) => {
    if (event.target === document.body && event.key.match(/^Arrow(Left|Right)$/)) onKey(event);
  });

  for (const button of ui.transport.querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => turnBy(Number(button.dataset.step)));
  }
  for (const button of ui.transport.querySelectorAll("[data-snap]")) {
    button.addEventListener("click", () => { pause(); turnTo(Number(button.dataset.snap)); });
  }

  function play() {
    playing = { from: angle(), since: null };
    ui.play.textContent = "Pause";
    ui.play.setAttribute("aria-pressed", "true");
    playing.frame = requestAnimationFrame(advance);
  }
  function advance(now) {
    if (!playing) return;
    playing.since ??= now;
    const seconds = (now - playing.since) / 1000;
    const turned = prefersLess.matches ? Math.floor(seconds / QUIET_STEP_S) * STEP_DEG : seconds * PLAY_DEG_PER_S;
    const next = wrapAngle(playing.from + Math.floor(turned / STEP_DEG) * STEP_DEG);
    if (next !== angle()) turnTo(next);
    playing.frame = requestAnimationFrame(advance);
  }
  function pause() {
    if (!playing) return;
    cancelAnimationFrame(playing.frame);
    playing = null;
    ui.play.textContent = "Play";
    ui.play.setAttribute("aria-pressed", "false");
  }
  ui.play.addEventListener("click", () => (playing ? pause() : play()));

  connectDial(ui.dial, { turnTo, angle, pause });
  return { pause };
}

/** The image can be grabbed: it follows the pointer around its centre, in the steps that were computed. */
function connectDial(dial, { turnTo, angle, pause }) {
  let grip = null; // the image's angle minus the pointer's, while the image is held
  dial.addEventListener("pointerdown", (event) => {
    pause();
    dial.setPointerCapture(event.pointerId);
    grip = angle() - pointerAngle(dial, event);
    dial.classList.add("is-held");
    event.preventDefault();
  });
  dial.addEventListener("pointermove", (event) => {
    if (grip === null) return;
    const next = wrapAngle(pointerAngle(dial, event) + grip);
    if (next !== angle()) turnTo(next);
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
    dial.addEventListener(end, () => { grip = null; dial.classList.remove("is-held"); });
  }
}

/** The ring around the image: a tick every 15°, a number at each quarter turn, and the knob. */
function drawDialRing(dial) {
  const ring = draw("svg", { viewBox: "-120 -120 240 240", class: "lab-ring", "aria-hidden": "true" });
  for (let angle = 0; angle < 360; angle += 15) {
    const isQuarter = angle % 90 === 0;
    ring.append(draw("line", { y1: -103, y2: isQuarter ? -111 : -107, transform: `rotate(${-angle})`, class: isQuarter ? "is-quarter" : "" }));
  }
  const knob = draw("g", { class: "lab-knob" }, draw("line", { y1: -98, y2: -108 }), draw("circle", { cy: -110, r: 7 }));
  ring.append(knob);
  dial.append(ring);
  return (angleDeg) => knob.setAttribute("transform", `rotate(${-angleDeg})`);
}
