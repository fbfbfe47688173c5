/* The mask brush: paints a photo's mask with pointer or keys, and hands it over as a PNG. */
(() => {
  "use strict";
  const studio = (window.customvideoStudio = window.customvideoStudio || {});
  const TINT = [255, 40, 150], DEEPEST = 24;

  studio.brush = ({ element, props, trigger, watch }) => {
    const { make, button, clamp } = studio;
    const canvas = make("canvas", { tabindex: "0", role: "img", class: "photo" });
    const size = make("input", { type: "range", min: "1", max: "40", value: "8", "aria-label": "Brush size" });
    const tools = { brush: button("Brush", { title: "B" }), eraser: button("Eraser", { title: "E" }) };
    const undo = button("Undo", { title: "Ctrl+Z" });
    const save = button("Save mask", { class: "primary" });
    const leave = button("Close without saving");
    const note = make("p", { class: "note", text:
      "Pink is the subject. B brush, E eraser, [ and ] size, Ctrl+Z undo; arrow keys move the brush and Space paints." });
    element.replaceChildren(
      make("div", { class: "tools", role: "toolbar", "aria-label": "Mask tools" },
        tools.brush, tools.eraser, make("label", { text: "Size " }, size), undo, save, leave),
      make("div", { class: "easel" }, canvas), note);
    const pen = canvas.getContext("2d");
    const mask = document.createElement("canvas");
    const paint = mask.getContext("2d", { willReadFrequently: true });
    const tint = document.createElement("canvas");
    let photo = null, tool = "brush", past = [], cursor = null, last = null, loaded = "";

    const choose = (name) => {
      tool = name;
      for (const [key, node] of Object.entries(tools)) node.setAttribute("aria-pressed", String(key === tool));
    };
    const radius = () => Math.max(1, (Number(size.value) / 200) * Math.max(canvas.width, canvas.height));
    const draw = () => {
      if (!photo) return;
      pen.globalAlpha = 1;
      pen.drawImage(photo, 0, 0, canvas.width, canvas.height);
      const shade = tint.getContext("2d");
      shade.globalCompositeOperation = "copy";
      shade.drawImage(mask, 0, 0);
      shade.globalCompositeOperation = "source-in";
      shade.fillStyle = `rgb(${TINT})`;
      shade.fillRect(0, 0, tint.width, tint.height);
      pen.globalAlpha = 0.55;
      pen.drawImage(tint, 0, 0);
      pen.globalAlpha = 1;
      if (!cursor) return;
      for (const [colour, width] of [["#000", 3], ["#fff", 1.5]]) {
        pen.strokeStyle = colour;
        pen.lineWidth = (width * canvas.width) / Math.max(1, canvas.clientWidth);
        pen.beginPath();
        pen.arc(cursor[0], cursor[1], radius(), 0, 2 * Math.PI);
        pen.stroke();
      }
    };
    const picture = (url) => new Promise((done, fail) => {
      const image = new Image();
      image.onload = () => done(image);
      image.onerror = () => fail(new Error("The photo cannot be shown."));
      image.src = url;
    });
    const load = async () => {
      const state = props.value || {};
      if (!state.photo) { loaded = ""; photo = null; return; }
      const key = state.photo + state.mask;
      if (key === loaded) return;
      loaded = key;
      canvas.setAttribute("aria-label", state.label || "Photo with its mask");
      const [image, drawn] = await Promise.all([picture(state.photo), state.mask ? picture(state.mask) : null]);
      if (key !== loaded) return;
      photo = image;
      for (const one of [canvas, mask, tint]) { one.width = image.naturalWidth; one.height = image.naturalHeight; }
      paint.clearRect(0, 0, mask.width, mask.height);
      if (drawn) fill(drawn);
      past = [];
      cursor = null;
      choose("brush");
      draw();
      element.dataset.ready = "yes";
    };
    const fill = (drawn) => {
      paint.drawImage(drawn, 0, 0, mask.width, mask.height);
      const data = paint.getImageData(0, 0, mask.width, mask.height);
      for (let i = 0; i < data.data.length; i += 4) data.data[i + 3] = data.data[i] > 127 ? 255 : 0;
      paint.putImageData(data, 0, 0);
    };
    const remember = () => {
      past.push(paint.getImageData(0, 0, mask.width, mask.height));
      if (past.length > DEEPEST) past.shift();
    };
    const stroke = (from, to) => {
      paint.globalCompositeOperation = tool === "brush" ? "source-over" : "destination-out";
      paint.strokeStyle = paint.fillStyle = "#fff";
      paint.lineCap = "round";
      paint.lineWidth = 2 * radius();
      paint.beginPath();
      paint.moveTo(...from);
      paint.lineTo(to[0] + 0.01, to[1]);
      paint.stroke();
      paint.globalCompositeOperation = "source-over";
    };
    const place = (event) => {
      const frame = canvas.getBoundingClientRect();
      return [((event.clientX - frame.left) / frame.width) * canvas.width,
        ((event.clientY - frame.top) / frame.height) * canvas.height];
    };
    const back = () => { if (past.length) { paint.putImageData(past.pop(), 0, 0); draw(); } };
    const hand = () => {
      const out = document.createElement("canvas");
      out.width = mask.width;
      out.height = mask.height;
      const flat = out.getContext("2d");
      flat.fillStyle = "#000";
      flat.fillRect(0, 0, out.width, out.height);
      flat.drawImage(mask, 0, 0);
      trigger("submit", { mask: out.toDataURL("image/png") });
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (!photo) return;
      event.preventDefault();
      canvas.focus({ preventScroll: true });
      canvas.setPointerCapture(event.pointerId);
      remember();
      cursor = last = place(event);
      stroke(last, last);
      draw();
    });
    canvas.addEventListener("pointermove", (event) => {
      cursor = place(event);
      if (last) { stroke(last, cursor); last = cursor; }
      draw();
    });
    const lift = () => { last = null; };
    canvas.addEventListener("pointerup", lift);
    canvas.addEventListener("pointercancel", lift);
    canvas.addEventListener("pointerleave", () => { if (!last) { cursor = null; draw(); } });
    const moved = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    canvas.addEventListener("keydown", (event) => {
      if (!photo) return;
      const key = event.key.toLowerCase();
      if (moved[event.key]) {
        const step = radius() / 2;
        cursor = cursor || [canvas.width / 2, canvas.height / 2];
        cursor = [clamp(cursor[0] + step * moved[event.key][0], 0, canvas.width), clamp(cursor[1] + step * moved[event.key][1], 0, canvas.height)];
      } else if (event.key === " ") {
        cursor = cursor || [canvas.width / 2, canvas.height / 2];
        remember();
        stroke(cursor, cursor);
      } else if (key === "b") choose("brush");
      else if (key === "e") choose("eraser");
      else if (key === "[") size.value = String(Number(size.value) - 2);
      else if (key === "]") size.value = String(Number(size.value) + 2);
      else if (key === "z" && (event.ctrlKey || event.metaKey)) back();
      else return;
      event.preventDefault();
      draw();
    });
    tools.brush.addEventListener("click", () => choose("brush"));
    tools.eraser.addEventListener("click", () => choose("eraser"));
    undo.addEventListener("click", back);
    save.addEventListener("click", hand);
    leave.addEventListener("click", () => trigger("clear", {}));
    watch("value", () => load().catch((error) => { note.textContent = error.message; }));
    load().catch((error) => { note.textContent = error.message; });
  };
})();
