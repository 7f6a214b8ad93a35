// Figures that answer to their reader: `orders`, `masks` and `film` of hoptm.explorables. No library, no network.
// Each finds its still picture and its data in its own element, hides the picture and draws in its place.
(() => {
  const make = (parent, name, attributes = {}, text = "") => {
    const svg = ["svg", "g", "path", "circle", "line", "rect", "text"].includes(name);
    const part = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) part.setAttribute(key, value);
    if (text) part.textContent = text;
    return parent.appendChild(part);
  };

  // ---- orders: the losses of hoptm.orders, hoptm.path_losses and hoptm.shape, on paths of K points ----
  const EPS = 1e-12, UNSEEN = 1e-9;
  const minus = (a, b) => a.map((value, axis) => value - b[axis]);
  const dot = (a, b) => a.reduce((sum, value, axis) => sum + value * b[axis], 0);
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const unit = (a) => a.map((value) => value / Math.max(Math.sqrt(dot(a, a)), EPS));
  const diff = (path) => path.slice(1).map((point, at) => minus(point, path[at]));
  const squares = (path) => path.map((point) => dot(point, point));
  const binomial = (n, k) => (k ? (binomial(n, k - 1) * (n - k + 1)) / k : 1);

  function endPoint(student, expert) {
    const last = expert.length - 1, gap = minus(student[last], expert[last]), moved = minus(expert[0], expert[last]);
    return dot(moved, moved) > 0 ? dot(gap, gap) / dot(moved, moved) : 0;
  }
  function between(student, expert) {
    return mean(expert.slice(1, -1).map((point, at) => {
      const gap = minus(student[at + 1], point), moved = minus(point, expert[0]);
      return dot(moved, moved) > 0 ? dot(gap, gap) / dot(moved, moved) : 0;
    }));
  }
  function cosines(path) {
    const corners = [path[0], path[(path.length - 1) / 2], path[path.length - 1]];
    return corners.map((corner, at) => {
      const [first, second] = corners.filter((_, other) => other !== at).map((other) => unit(minus(other, corner)));
      return dot(first, second);
    });
  }
  function shape(student, expert) {
    const gaps = minus(cosines(student), cosines(expert)).map(Math.abs);
    return (2 / 27) * gaps.reduce((sum, gap) => sum + (gap < 1 ? 0.5 * gap * gap : gap - 0.5), 0);
  }
  function velocity(student, expert) {
    const theirs = diff(expert).map(unit);
    const cosines = diff(student).map((chord, at) => dot(unit(chord), theirs[at])).filter((_, at) => theirs[at].some((part) => part !== 0));
    return cosines.length ? 1 - mean(cosines) : 0;
  }
  function difference(student, expert, order) {
    const chords = mean(squares(diff(expert)));
    let gaps = student.map((point, at) => minus(point, expert[at]));
    for (let times = 0; times < order; times += 1) gaps = diff(gaps);
    return chords > 0 ? mean(squares(gaps)) / (0.5 * binomial(2 * order, order) * chords) : 0;
  }
  const LOSSES = {
    "end point": endPoint, between, shape, velocity,
    curvature: (s, e) => difference(s, e, 2), torsion: (s, e) => difference(s, e, 3), "order 4": (s, e) => difference(s, e, 4),
  };

  function orders(root, data) {
    const { expert, paths, colours, ink, grey } = data;
    let preset = data.first, amount = 1, student = [];
    const top = make(root, "div", { role: "group", "aria-label": "deformations" });
    const buttons = Object.keys(paths).map((name) => make(top, "button", { type: "button" }, name));
    const label = make(root, "label", {}, "how much of it ");
    const slider = make(label, "input", { type: "range", min: -1.5, max: 1.5, step: 0.1, value: 1 });
    const panels = make(root, "div", { class: "panels" });
    const svg = make(panels, "svg", { viewBox: "-0.3 -1.15 2.6 2.3", role: "group", "aria-label": "the expert's path and the student's, which you can move" });
    const table = make(panels, "table");
    make(table, "caption", {}, "what each loss says of the two paths (bars: its root)");
    const rows = Object.keys(LOSSES).map((name) => {
      const row = make(table, "tr");
      make(row, "th", { scope: "row" }, name);
      const bar = make(make(row, "td"), "div", { class: "bar" });
      bar.style.background = colours[name] || grey;
      return { name, row, bar, value: make(row, "td", { class: "value" }) };
    });
    const said = make(root, "output");
    const line = (colour, width) => make(svg, "path", { fill: "none", stroke: colour, "stroke-width": width });
    const [theirs, ours] = [line(grey, 0.025), line(colours.student, 0.025)];
    const dots = (colour, size) => expert.map(() => make(svg, "circle", { fill: colour, r: size }));
    const marks = dots(grey, 0.055), handles = dots(colours.student, 0.042);
    const across = (path) => `M ${path.map(([x, y]) => `${x} ${-y}`).join(" L ")}`;

    function draw() {
      theirs.setAttribute("d", across(expert));
      ours.setAttribute("d", across(student));
      expert.forEach((point, at) => place(marks[at], point));
      student.forEach((point, at) => {
        place(handles[at], point);
        if (at) handles[at].setAttribute("aria-label", `waypoint ${at} of the student, ${point[0].toFixed(2)} along and ${point[1].toFixed(2)} aside; arrow keys move it`);
      });
      for (const { name, row, bar, value } of rows) {
        const found = LOSSES[name](student, expert), seen = found >= UNSEEN;
        row.dataset.value = found;
        bar.style.width = `${seen ? Math.max(2, 100 * Math.sqrt(Math.min(1, found))) : 0}%`;
        value.textContent = seen ? (found < 0.001 ? found.toExponential(0) : found.toPrecision(2)) : "0";
      }
      const blind = rows.filter(({ row }) => row.dataset.value < UNSEEN).map(({ name }) => name);
      said.textContent = blind.length ? `Blind to this: ${blind.join(", ")}.` : "Every loss sees this.";
      buttons.forEach((button) => button.setAttribute("aria-pressed", button.textContent === preset));
    }
    const place = (circle, [x, y]) => { circle.setAttribute("cx", x); circle.setAttribute("cy", -y); };
    function deform() {
      student = expert.map((point, at) => point.map((value, axis) => value + amount * (paths[preset][at][axis] - value)));
      draw();
    }
    function move(at, [x, y]) {
      student[at] = [Math.min(2.25, Math.max(-0.25, x)), Math.min(1.1, Math.max(-1.1, y))];
      preset = "";
      draw();
    }
    buttons.forEach((button) => button.addEventListener("click", () => { preset = button.textContent; deform(); }));
    slider.addEventListener("input", () => { amount = Number(slider.value); preset = preset || data.first; deform(); });
    handles.forEach((handle, at) => {
      if (at === 0) return; // both paths begin at one point
      handle.setAttribute("tabindex", 0);
      handle.setAttribute("role", "button");
      handle.setAttribute("stroke", "transparent");
      handle.setAttribute("stroke-width", 0.1);
      handle.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: [-0.05, 0], ArrowRight: [0.05, 0], ArrowUp: [0, 0.05], ArrowDown: [0, -0.05] }[event.key];
        if (!step) return;
        event.preventDefault();
        event.stopPropagation(); // the arrows of the theme turn pages
        move(at, student[at].map((value, axis) => value + step[axis]));
      });
      handle.addEventListener("pointerdown", (event) => { handle.setPointerCapture(event.pointerId); handle.focus(); });
      handle.addEventListener("pointermove", (event) => {
        if (!handle.hasPointerCapture(event.pointerId)) return;
        const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
        move(at, [point.x, -point.y]);
      });
    });
    make(svg, "text", { x: -0.25, y: 1.08, "font-size": 0.13, fill: grey }, "expert");
    make(svg, "text", { x: 0.25, y: 1.08, "font-size": 0.13, fill: colours.student }, "student");
    root.style.color = ink;
    deform();
  }

  // ---- masks: which parameters count, iteration by iteration ----
  function masks(root, data) {
    const names = Object.keys(data.masks), last = data.limits.length - 1;
    let name = names[0], at = data.first;
    const top = make(root, "div", { role: "group", "aria-label": "masks" });
    const buttons = names.map((mask) => make(top, "button", { type: "button" }, mask));
    const label = make(root, "label", {}, "outer iteration ");
    const slider = make(label, "input", { type: "range", min: 0, max: last, step: 1, value: at });
    const wide = Math.max(300, Math.min(587, root.clientWidth - 16 || 587)), tall = 250, left = 20, floor = 205;
    const svg = make(root, "svg", { viewBox: `0 0 ${wide} ${tall}`, role: "img" });
    const place = (power) => left + ((power - data.edges[0]) / (data.edges[data.edges.length - 1] - data.edges[0])) * (wide - 2 * left);
    const most = Math.max(...data.total.flat());
    const bars = data.total[0].map((_, bin) => {
      const box = { x: place(data.edges[bin]) + 0.5, width: place(data.edges[bin + 1]) - place(data.edges[bin]) - 1 };
      return [make(svg, "rect", { ...box, fill: data.faint }), make(svg, "rect", box)];
    });
    const limit = make(svg, "line", { y1: 10, y2: floor, stroke: data.colours.sticky, "stroke-width": 2 });
    const tag = make(svg, "text", { y: 20, fill: data.colours.sticky });
    make(svg, "line", { x1: left, x2: wide - left, y1: floor, y2: floor, stroke: data.ink });
    for (let power = Math.ceil(data.edges[0]); power <= data.edges[data.edges.length - 1]; power += 2)
      make(svg, "text", { x: place(power), y: floor + 18, "text-anchor": "middle", fill: data.ink }, `1e${power}`);
    make(svg, "text", { x: left, y: tall - 6, fill: data.ink }, "squared error of a parameter");
    const said = make(root, "output");

    function draw() {
      const { counts, shares } = data.masks[name];
      bars.forEach(([all, used], bin) => {
        const heights = [data.total[at][bin], counts[at][bin]].map((count) => (count / most) * (floor - 30));
        [all, used].forEach((bar, which) => { bar.setAttribute("y", floor - heights[which]); bar.setAttribute("height", heights[which]); });
        used.setAttribute("fill", data.colours[name]);
      });
      const x = place(Math.log10(data.limits[at])), absolute = data.absolute.includes(name);
      limit.setAttribute("x1", x);
      limit.setAttribute("x2", x);
      for (const part of [limit, tag]) part.style.display = absolute ? "" : "none";
      tag.setAttribute("x", x + (x > wide / 2 ? -6 : 6));
      tag.setAttribute("text-anchor", x > wide / 2 ? "end" : "start");
      tag.textContent = `threshold ${data.limits[at].toExponential(1)}`;
      const share = `${(100 * shares[at]).toFixed(0)} % of the parameters in use`;
      const words = `Iteration ${at}, ${name}: ${share}${absolute ? `, threshold ${data.limits[at].toExponential(1)}` : ""}.`;
      said.textContent = words;
      svg.setAttribute("aria-label", `Histogram of squared errors, the part in use in colour. ${words}`);
      Object.assign(root.dataset, { at, mask: name, share: shares[at], limit: data.limits[at], used: counts[at].reduce((sum, count) => sum + count, 0) });
      slider.setAttribute("aria-valuetext", words);
      buttons.forEach((button) => button.setAttribute("aria-pressed", button.textContent === name));
    }
    buttons.forEach((button) => button.addEventListener("click", () => { name = button.textContent; draw(); }));
    slider.addEventListener("input", () => { at = Number(slider.value); draw(); });
    draw();
  }

  // ---- film: pictures that each hold what changed since the one before ----
  function film(root, data) {
    const still = root.querySelector("img"), last = data.pictures.length - 1;
    const canvas = make(root, "canvas", { width: data.width, height: data.height, role: "img", "aria-label": still.alt });
    const pen = canvas.getContext("2d");
    const bar = make(root, "div", { class: "player" });
    const button = make(bar, "button", { type: "button" });
    const slider = make(bar, "input", { type: "range", min: 0, max: last, step: 1, value: last, "aria-label": "place in the film" });
    const said = make(bar, "span");
    let at = last, clock = 0;
    const pictures = data.pictures.map((source) => Object.assign(new Image(), { src: `data:image/png;base64,${source}` }));
    function show(next) {
      at = next;
      pictures.slice(0, at + 1).forEach((picture) => pen.drawImage(picture, 0, 0));
      slider.value = at;
      said.textContent = data.labels[at];
      slider.setAttribute("aria-valuetext", data.labels[at]);
      root.dataset.at = at;
    }
    function play(on) {
      clearInterval(clock);
      clock = on ? setInterval(() => (at < last ? show(at + 1) : play(false)), data.milliseconds) : 0;
      button.textContent = on ? "Pause" : "Play";
    }
    button.addEventListener("click", () => {
      if (!clock && at === last) show(0);
      play(!clock);
    });
    slider.addEventListener("input", () => { play(false); show(Number(slider.value)); });
    play(false);
    Promise.all(pictures.map((picture) => picture.decode())).then(() => show(last));
  }

  const STYLE = `
    .explorable { print-color-adjust: exact; background: #ffffff; color: #333333; max-width: 603px; padding: 8px; font: 14px/1.4 sans-serif; border-radius: 4px; }
    .explorable img[hidden] { display: none; }
    .explorable button { font: inherit; color: #333333; background: #ffffff; border: 1px solid #777777; border-radius: 4px; padding: 2px 9px; margin: 2px; cursor: pointer; }
    .explorable button[aria-pressed="true"] { background: #333333; color: #ffffff; }
    .explorable :focus-visible { outline: 3px solid #0072b2; outline-offset: 2px; }
    .explorable label { display: block; margin: 6px 2px; }
    .explorable input[type="range"] { width: min(300px, 55%); vertical-align: middle; accent-color: #0072b2; }
    .explorable svg { display: block; width: 100%; height: auto; font-size: 14px; touch-action: none; }
    .explorable .panels { display: flex; flex-wrap: wrap; gap: 8px; }
    .explorable .panels svg { flex: 1 1 260px; max-width: 300px; min-width: 0; }
    .explorable table { flex: 1 1 250px; border-collapse: collapse; margin: 0; color: inherit; }
    .explorable caption { caption-side: top; text-align: left; color: inherit; padding: 0; }
    .explorable th, .explorable td { padding: 2px 6px 2px 0; border: 0; text-align: left; font-weight: normal; white-space: nowrap; color: inherit; }
    .explorable td:nth-child(2) { width: 99%; }
    .explorable .bar { height: 14px; }
    .explorable .value { font-variant-numeric: tabular-nums; }
    .explorable output { display: block; margin: 4px 2px; min-height: 1.4em; }
    .explorable canvas { display: block; max-width: 100%; height: auto; }
    .explorable circle[tabindex] { cursor: grab; }
    .explorable .player { display: flex; align-items: center; gap: 8px; flex-wrap: wrap; }
    @media print { .explorable { break-inside: avoid; } .explorable button, .explorable label, .explorable .player { display: none; } }`;
  const KINDS = { orders, masks, film };
  for (const root of document.querySelectorAll(".explorable:not([data-ready])")) {
    root.dataset.ready = "";
    make(root, "style", {}, STYLE);
    root.querySelector("img").hidden = true;
    KINDS[root.dataset.explorable](root, JSON.parse(root.querySelector("script[type='application/json']").textContent));
  }
})();
