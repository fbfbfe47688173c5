/* What the studio's own components do in the browser: panels of buttons, the prompt box, the layout
   canvas, the mask brush and the locked players. No state is kept here that the server needs. */
(() => {
  "use strict";
  const studio = (window.customvideoStudio = window.customvideoStudio || {});
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "text") node.textContent = value;
      else if (value !== false && value != null) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children);
    return node;
  };
  const button = (text, attributes = {}) => make("button", { type: "button", text, ...attributes });

  /* A panel: buttons carry data-do and whatever else the server needs; data-show swaps a video.
     What somebody has opened stays open when the server sends the panel anew. */
  studio.panel = ({ element, trigger }) => {
    const opened = new Set();
    new MutationObserver(() => {
      for (const summary of element.querySelectorAll("details:not([open]) > summary")) {
        if (opened.has(summary.textContent)) summary.parentElement.open = true;
      }
    }).observe(element, { childList: true, subtree: true, attributeFilter: ["open"] });
    element.addEventListener("click", (event) => {
      const summary = event.target.closest("summary");
      if (summary) opened[summary.parentElement.open ? "delete" : "add"](summary.textContent);
      const shown = event.target.closest("[data-show]");
      if (shown) return swap(shown);
      const pressed = event.target.closest("[data-do]");
      if (pressed && !pressed.disabled) trigger("click", { ...pressed.dataset });
    });
  };
  const swap = (pressed) => {
    const figure = pressed.closest("figure");
    const video = figure.querySelector("video");
    for (const other of figure.querySelectorAll("[data-show]")) {
      other.setAttribute("aria-pressed", String(other === pressed));
    }
    const at = video.currentTime;
    const playing = !video.paused;
    video.src = pressed.dataset.show;
    video.addEventListener("loadedmetadata", () => {
      video.currentTime = Math.min(at, video.duration || 0);
      if (playing) video.play().catch(() => {});
    }, { once: true });
  };

  /* The prompt box: completes learned words after "<", marks words in brackets nobody learned. */
  const WORD = /<([a-z0-9_-]*)>/gi;
  studio.prompt = ({ element, props, trigger, watch }) => {
    const id = `prompt-${Math.random().toString(36).slice(2)}`;
    const label = make("label", { for: id, text: props.label || "Prompt" });
    const mirror = make("div", { class: "mirror", "aria-hidden": "true" });
    const area = make("textarea", {
      id, rows: "3", spellcheck: "false", autocomplete: "off", maxlength: "2000",
      placeholder: props.placeholder || "", role: "combobox", "aria-expanded": "false",
      "aria-autocomplete": "list", "aria-controls": `${id}-list`, "aria-describedby": `${id}-note`,
    });
    const list = make("ul", { id: `${id}-list`, role: "listbox", class: "choices", hidden: true,
      "aria-label": "Learned words" });
    const note = make("p", { id: `${id}-note`, class: "note", role: "status" });
    const chips = make("div", { class: "chips" });
    element.replaceChildren(label, make("div", { class: "writing" }, mirror, area, list), note, chips);
    let words = [], open = [], at = 0;

    const learn = () => {
      words = props.words || [];
      chips.replaceChildren(...words.map((word) => {
        const chip = button(word.text, { class: "chip word", title: `Write ${word.text}` });
        chip.addEventListener("click", () => insert(word.text, area.selectionStart, area.selectionEnd));
        return chip;
      }));
      mark();
    };
    const mark = () => {
      const known = new Set(words.map((word) => word.name.toLowerCase()));
      const pieces = [], unknown = [];
      let last = 0;
      for (const found of area.value.matchAll(WORD)) {
        const good = known.has(found[1].toLowerCase());
        pieces.push(area.value.slice(last, found.index),
          make("mark", { class: good ? "known" : "unknown", text: found[0] }));
        if (!good) unknown.push(found[0]);
        last = found.index + found[0].length;
      }
      mirror.replaceChildren(...pieces, area.value.slice(last) + "\n");
      mirror.scrollTop = area.scrollTop;
      const spoken = area.value.toLowerCase().split(/[^a-z0-9_<>-]+/);
      const bare = words.filter((word) => spoken.includes(word.name.toLowerCase()));
      note.className = unknown.length ? "note bad" : "note";
      note.textContent = unknown.length
        ? `Not learned: ${unknown.join(", ")}. ${words.length ? `Known: ${words.map((w) => w.word).join(", ")}.`
          : "The base model knows no learned words; choose an adapter."}`
        : bare.length ? `Did you mean ${bare.map((word) => word.word).join(", ")}? Learned words stand in < >.`
        : words.length ? "Type < for a learned word." : "";
      area.setAttribute("aria-invalid", String(unknown.length > 0));
    };
    const changed = () => { props.value = area.value; mark(); suggest(); };
    const insert = (text, from, to) => {
      area.setRangeText(text, from, to, "end");
      area.focus();
      close();
      props.value = area.value;
      mark();
    };
    const close = () => {
      list.hidden = true;
      area.setAttribute("aria-expanded", "false");
      area.removeAttribute("aria-activedescendant");
    };
    const begun = () => {
      const before = area.value.slice(0, area.selectionStart);
      const from = before.lastIndexOf("<");
      return from < 0 || /[>\s]/.test(before.slice(from + 1)) ? null : { from, text: before.slice(from + 1) };
    };
    const suggest = () => {
      const start = begun();
      open = start ? words.filter((word) => word.name.startsWith(start.text.toLowerCase())) : [];
      if (!open.length) return close();
      at = 0;
      list.replaceChildren(...open.map((word, index) => {
        const choice = make("li", { role: "option", id: `${id}-${index}`, text: word.text });
        choice.addEventListener("pointerdown", (event) => { event.preventDefault(); take(index); });
        return choice;
      }));
      list.hidden = false;
      area.setAttribute("aria-expanded", "true");
      point(0);
    };
    const point = (index) => {
      at = (index + open.length) % open.length;
      [...list.children].forEach((choice, i) => choice.setAttribute("aria-selected", String(i === at)));
      area.setAttribute("aria-activedescendant", `${id}-${at}`);
    };
    const take = (index) => insert(open[index].text, begun().from, area.selectionStart);
    area.addEventListener("input", changed);
    area.addEventListener("scroll", () => { mirror.scrollTop = area.scrollTop; });
    area.addEventListener("blur", close);
    area.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { trigger("submit"); return; }
      if (list.hidden) return;
      if (event.key === "ArrowDown") point(at + 1);
      else if (event.key === "ArrowUp") point(at - 1);
      else if (event.key === "Enter" || event.key === "Tab") take(at);
      else if (event.key === "Escape") close();
      else return;
      event.preventDefault();
    });
    const put = () => { if (area.value !== (props.value || "")) { area.value = props.value || ""; } mark(); };
    watch("value", put);
    watch("words", learn);
    put();
    learn();
  };

  /* The layout canvas: a box for each learned word, drawn by pointer or moved by arrow keys. */
  studio.layout = ({ element, props, watch }) => {
    const stage = make("div", { class: "stage" });
    const chips = make("div", { class: "chips" });
    const note = make("p", { class: "note", text:
      "Choose a word and draw where it shall stay. Arrow keys move a box, with Shift they change its size, Delete removes it." });
    element.replaceChildren(chips, stage, note);
    let words = [], boxes = {}, chosen = "";

    const read = () => {
      const state = props.value || {};
      words = state.words || [];
      boxes = { ...(state.boxes || {}) };
      stage.style.aspectRatio = String(state.aspect || 1.5);
      if (!words.includes(chosen)) chosen = words[0] || "";
      draw();
    };
    const write = () => { props.value = { ...(props.value || {}), boxes: { ...boxes } }; draw(); };
    const draw = () => {
      chips.replaceChildren(...words.map((word) => {
        const chip = button(`<${word}>`, { class: "chip", "aria-pressed": String(word === chosen) });
        chip.addEventListener("click", () => { chosen = word; draw(); });
        return chip;
      }));
      const kept = new Map([...stage.children].map((node) => [node.dataset.word, node]));
      for (const [word, node] of kept) if (!boxes[word]) node.remove();
      for (const [word, box] of Object.entries(boxes)) {
        let node = kept.get(word);
        if (!node) {
          node = make("div", { class: "box", tabindex: "0", role: "group", "data-word": word });
          const gone = button("×", { class: "gone", "aria-label": `Remove the box of <${word}>` });
          gone.addEventListener("click", () => { delete boxes[word]; write(); });
          node.append(make("span", { text: `<${word}>` }), gone);
          node.addEventListener("keydown", (event) => key(event, word));
          stage.append(node);
        }
        const [left, top, right, bottom] = box.map((share) => Math.round(share * 100));
        node.setAttribute("aria-label", `Box of <${word}>: ${left} to ${right} % across, ${top} to ${bottom} % down`);
        Object.assign(node.style, { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` });
        node.classList.toggle("chosen", word === chosen);
      }
      element.classList.toggle("empty", !words.length);
    };
    const key = (event, word) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (event.key === "Delete" || event.key === "Backspace") { delete boxes[word]; write(); return; }
      if (!step) return;
      event.preventDefault();
      let [left, top, right, bottom] = boxes[word];
      const [x, y] = step.map((one) => one * 0.02);
      if (event.shiftKey) {
        right = clamp(right + x, left + 0.1, 1);
        bottom = clamp(bottom + y, top + 0.1, 1);
      } else {
        const dx = clamp(x, -left, 1 - right), dy = clamp(y, -top, 1 - bottom);
        [left, top, right, bottom] = [left + dx, top + dy, right + dx, bottom + dy];
      }
      boxes[word] = [left, top, right, bottom];
      write();
    };
    let from = null;
    const place = (event) => {
      const frame = stage.getBoundingClientRect();
      return [clamp((event.clientX - frame.left) / frame.width, 0, 1), clamp((event.clientY - frame.top) / frame.height, 0, 1)];
    };
    const stretch = (event) => {
      const to = place(event);
      return [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])];
    };
    stage.addEventListener("pointerdown", (event) => {
      if (event.target.closest("button") || !chosen) return;
      event.preventDefault();
      from = place(event);
      stage.setPointerCapture(event.pointerId);
    });
    stage.addEventListener("pointermove", (event) => {
      if (from) { boxes[chosen] = stretch(event); draw(); }
    });
    stage.addEventListener("pointerup", (event) => {
      if (!from) return;
      const box = stretch(event);
      from = null;
      if (box[2] - box[0] < 0.05 || box[3] - box[1] < 0.05) delete boxes[chosen];
      else boxes[chosen] = box;
      write();
    });
    watch("value", read);
    read();
  };

  Object.assign(studio, { make, button, clamp });
})();
