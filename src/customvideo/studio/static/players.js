/* Players locked to one frame: every video shows frame k before any shows frame k + 1. */
(() => {
  "use strict";
  const studio = (window.customvideoStudio = window.customvideoStudio || {});
  const PATIENCE = 400;

  studio.players = ({ element, props, watch }) => {
    const { make, button, clamp } = studio;
    const stage = make("div", { class: "side-by-side" });
    const play = button("Play", { class: "primary" });
    const back = button("‹", { "aria-label": "One frame back" });
    const on = button("›", { "aria-label": "One frame on" });
    const slider = make("input", { type: "range", min: "0", value: "0", step: "1", "aria-label": "Frame" });
    const speed = make("select", { "aria-label": "Speed" },
      ...[0.25, 0.5, 1].map((x) => make("option", { value: String(x), text: `${x}×`, selected: x === 1 })));
    const said = make("output", { text: "" });
    const bar = make("div", { class: "tools", role: "toolbar", "aria-label": "Playback of all videos" },
      play, back, on, slider, said, speed);
    element.replaceChildren(stage, bar);
    let videos = [], frames = 0, at = 0, running = false, round = 0;

    const build = () => {
      const films = (props.value || {}).films || [];
      stop();
      round += 1;
      stage.replaceChildren(...films.map((film) => {
        const video = make("video", { src: film.src, muted: true, playsinline: true, preload: "auto", "aria-label": film.alt });
        video.muted = true;
        const figure = make("figure", {}, video, make("figcaption", {}, make("strong", { text: film.title }), ` ${film.caption}`));
        for (const [word, src] of Object.entries(film.attention || {})) {
          const look = button(word, { class: "chip", "aria-pressed": "false", "aria-label": `Where ${word} looks, ${film.title}` });
          look.addEventListener("click", () => {
            const shown = look.getAttribute("aria-pressed") === "true";
            figure.querySelectorAll("button").forEach((other) => other.setAttribute("aria-pressed", "false"));
            look.setAttribute("aria-pressed", String(!shown));
            video.src = shown ? film.src : src;
            video.addEventListener("loadeddata", () => show(at), { once: true });
          });
          figure.append(look);
        }
        return figure;
      }));
      videos = [...stage.querySelectorAll("video")].map((node, index) => ({ node, fps: films[index].fps }));
      frames = films.length ? Math.min(...films.map((film) => film.frames)) : 0;
      slider.max = String(Math.max(0, frames - 1));
      bar.hidden = !films.length;
      at = 0;
      const mine = round;
      Promise.all(videos.map(({ node }) => node.readyState >= 2 ? null
        : new Promise((done) => node.addEventListener("loadeddata", done, { once: true }))))
        .then(() => { if (mine === round && films.length) { show(0); element.dataset.ready = "yes"; } });
    };
    const seek = ({ node, fps }, frame) => new Promise((done) => {
      const time = (frame + 0.5) / fps;
      if (Math.abs(node.currentTime - time) < 1e-4) return done();
      const finish = () => { clearTimeout(late); node.removeEventListener("seeked", finish); done(); };
      const late = setTimeout(finish, PATIENCE);
      node.addEventListener("seeked", finish);
      node.currentTime = time;
    });
    const show = async (frame) => {
      at = clamp(frame, 0, Math.max(0, frames - 1));
      slider.value = String(at);
      said.textContent = `${at + 1} / ${frames}`;
      await Promise.all(videos.map((video) => seek(video, at)));
      element.dataset.frame = String(at);
    };
    const run = async () => {
      running = true;
      play.textContent = "Pause";
      const mine = round;
      while (running && mine === round) {
        const began = performance.now();
        await show((at + 1) % Math.max(1, frames));
        const wait = 1000 / (videos[0].fps * Number(speed.value)) - (performance.now() - began);
        await new Promise((done) => setTimeout(done, Math.max(0, wait)));
        if (!element.isConnected) running = false;
      }
    };
    const stop = () => { running = false; play.textContent = "Play"; };
    play.addEventListener("click", () => { if (running) stop(); else if (videos.length) run(); });
    back.addEventListener("click", () => { stop(); show((at - 1 + frames) % Math.max(1, frames)); });
    on.addEventListener("click", () => { stop(); show((at + 1) % Math.max(1, frames)); });
    slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
    watch("value", build);
    build();
  };
})();
