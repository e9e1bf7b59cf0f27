// The page: a photo or a seed in, what a model makes of it out. Models come from export.json; the work is the worker's.
import { color, fitted, normals, shrunk } from "./pixels.js";

const $ = (id) => document.getElementById(id);
const MOST_PIXELS = 50e6; // that a photo may have: more would fill the memory of small devices
const MOST_SIDE = { photo: 384, strokes: 160 }; // of what models of any size are given
const ENGINES = { litert: "this device (LiteRT)", onnx: "this device (ONNX Runtime)", server: "the server" };

class Trouble extends Error {} // in words for people

const state = { models: [], jobs: [], photo: null, marks: null, stream: null, busy: false, here: true };

// --- models

function picture(spec) {
  return spec.dtype === "uint8" && spec.shape.length === 4 && spec.shape[3] === 3;
}

function kind(inputs) {
  const [first, second] = inputs;
  if (inputs.length === 1 && picture(first)) return "photo";
  if (inputs.length === 1 && first.dtype === "float32" && first.shape.length === 2 && Number.isInteger(first.shape[1])) return "seed";
  const map = second && second.dtype === "uint8" && second.shape.length === 4 && second.shape[3] === 1;
  return inputs.length === 2 && picture(first) && map && second.name === "trimap" ? "strokes" : null;
}

function offered(index) {
  const found = [];
  for (const [name, model] of Object.entries(index.models)) {
    const engines = {};
    for (const artifact of model.artifacts) {
      if (artifact.verified && artifact.precision === "fp32" && ["litert", "onnx"].includes(artifact.format)) engines[artifact.format] = artifact;
    }
    const first = engines.litert || engines.onnx;
    if (first && kind(first.inputs)) found.push({ name, about: model.about, engines, kind: kind(first.inputs) });
  }
  return found;
}

async function json(url) {
  let answer;
  try {
    answer = await fetch(url);
  } catch {
    throw new Trouble("The page cannot reach the place it came from. Is the server still running?");
  }
  if (!answer.ok) return null;
  try {
    return await answer.json();
  } catch {
    throw new Trouble(`The list of models, ${url}, is damaged. Export them again.`);
  }
}

// --- pictures

function header(image) {
  const pixels = image.naturalWidth * image.naturalHeight;
  if (pixels > MOST_PIXELS) {
    throw new Trouble(`This picture has ${Math.round(pixels / 1e6)} megapixels; at most ${MOST_PIXELS / 1e6} are read here. Make it smaller first, such as with your photo app.`);
  }
  if (!pixels) throw new Trouble("This picture has no size of its own. Choose a photo, such as a JPEG or PNG.");
}

async function readPhoto(blob, name) {
  const url = URL.createObjectURL(blob);
  try {
    const image = new Image();
    await new Promise((done, failed) => {
      image.onload = done;
      image.onerror = () => failed(new Trouble(`${name} is not a picture that can be read here. Choose a photo, such as a JPEG or PNG.`));
      image.src = url;
    });
    header(image); // before anything is decoded
    let bitmap;
    try {
      bitmap = await createImageBitmap(blob, { premultiplyAlpha: "none" });
    } catch {
      throw new Trouble(`${name} is damaged or cut short. Get the file again, or choose another.`);
    }
    return pixelsOf(bitmap, bitmap.width, bitmap.height);
  } finally {
    URL.revokeObjectURL(url);
  }
}

function pixelsOf(source, width, height) {
  const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Trouble("This device has not enough memory for a picture of this size. Make it smaller first.");
  context.fillStyle = "white"; // what transparency lies over
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0);
  if (source.close) source.close();
  const rgba = context.getImageData(0, 0, width, height).data, data = new Uint8ClampedArray(width * height * 3);
  for (let i = 0, j = 0; i < rgba.length; i += 4) {
    data[j++] = rgba[i];
    data[j++] = rgba[i + 1];
    data[j++] = rgba[i + 2];
  }
  return { data, width, height };
}

function draw(canvas, { data, width, height, channels = 3, alpha = null }) {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = data[channels * i + (channels === 3 ? c : 0)];
    image.data[4 * i + 3] = alpha ? Math.round(255 * Math.min(1, Math.max(0, alpha[i]))) : 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function say(id, text) {
  $(id).textContent = text;
}

function fail(error) {
  const known = error instanceof Trouble;
  if (!known) console.error(error);
  say("error", known ? error.message : `Something went wrong that should not: ${error.message || error}. Reload the page and try again.`);
  $("error").hidden = false;
  say("status", "");
  $("progress").hidden = true;
}

function well() {
  $("error").hidden = true;
}

async function takePhoto(blob, name) {
  well();
  say("status", "Reading the picture …");
  try {
    state.photo = await readPhoto(blob, name);
    say("status", "");
    show();
  } catch (error) {
    fail(error);
  }
  update();
}

// --- what is chosen

const chosen = () => state.models[$("model").value] || null;
const engine = () => $("engine").value;
const artifact = () => chosen() && (chosen().engines[engine()] || Object.values(chosen().engines)[0]);

function given(picture) {
  if (engine() === "server") return shrunk(picture, 1024); // which takes it as it is
  const spec = artifact() ? artifact().inputs[0] : { shape: [1, "height", "width", 3] };
  const [, height, width] = spec.shape;
  return Number.isInteger(height) && Number.isInteger(width) ? fitted(picture, width, height) : shrunk(picture, MOST_SIDE[chosen() ? chosen().kind : "photo"]);
}

function show() {
  const model = chosen();
  if (!state.photo || !model || model.kind === "seed") return;
  const fit = given(state.photo);
  state.fit = fit;
  state.marks = model.kind === "strokes" ? new Uint8Array(fit.width * fit.height).fill(128) : null;
  draw($("input"), fit);
  const same = fit.width === state.photo.width && fit.height === state.photo.height;
  say("input-says", same ? `${fit.width} × ${fit.height} pixels` : `${fit.width} × ${fit.height} pixels, of ${state.photo.width} × ${state.photo.height}`);
}

function update() {
  const model = chosen();
  const kinds = model ? model.kind : "photo";
  $("photo-choice").hidden = $("given").hidden = kinds === "seed";
  $("strokes").hidden = kinds !== "strokes";
  $("seed-choice").hidden = kinds !== "seed";
  $("run").disabled = state.busy || !model || (kinds !== "seed" && !state.photo);
  $("engine-choice").hidden = $("engine").options.length < 2;
  say("about", model ? model.about.description || "" : "");
  say("license", model && model.about.license ? `${model.name}: ${model.about.license}` : "");
  say("where", engine() === "server" ? "Computed by the server that this page came from." : "Everything is computed on this device. No picture leaves it.");
}

function pickModel() {
  const model = chosen(), before = engine();
  $("engine").replaceChildren();
  if (model) {
    const able = [...(state.here ? Object.keys(model.engines).sort() : []), ...(model.server ? ["server"] : [])];
    for (const name of able) $("engine").add(new Option(ENGINES[name], name, false, name === before));
  }
  $("output").width = $("output").height = 1;
  $("legend").replaceChildren();
  $("save").hidden = true;
  say("output-says", "");
  well();
  show();
  update();
}

// --- computing

let worker = null, asked = 0;
function compute(model, inputs) {
  if (!worker) worker = new Worker("worker.js");
  const id = ++asked;
  return new Promise((done, failed) => {
    worker.onerror = () => {
      worker = null;
      failed(new Trouble("The part of the page that computes could not be started. Reload the page; if that does not help, use a newer browser."));
    };
    worker.onmessage = ({ data }) => {
      if (data.id !== id) return;
      if (data.state) {
        say("status", data.state === "loading" ? "Loading the model …" : "Computing …");
      } else if (data.error) {
        console.error(data.error);
        worker.terminate(); // what is left of a failed runtime is not used again
        worker = null;
        failed(new Trouble(data.loading ? `The model ${chosen().name} could not be loaded: its file is missing or damaged, or this browser cannot run it. Reload the page, or choose another model. (${data.error.slice(0, 200)})` : `The model could not compute this (${data.error.slice(0, 200)}). Try a smaller picture, or another model.`));
      } else {
        done(data);
      }
    };
    worker.postMessage({ id, model, inputs });
  });
}

function inputsOf(model, file) {
  if (model.kind === "seed") {
    const [spec] = file.inputs, count = 16, batch = Number.isInteger(spec.shape[0]) ? spec.shape[0] : count;
    const data = normals(Number($("seed").value) || 0, count * spec.shape[1]);
    const calls = [];
    for (let at = 0; at < count; at += batch) calls.push({ [spec.name]: { data: data.slice(at * spec.shape[1], (at + batch) * spec.shape[1]), shape: [batch, spec.shape[1]] } });
    return calls;
  }
  const { data, width, height } = state.fit;
  const inputs = { [file.inputs[0].name]: { data: new Uint8Array(data), shape: [1, height, width, 3] } };
  if (model.kind === "strokes") {
    if (!state.marks.includes(255) || !state.marks.includes(0)) throw new Trouble("Paint something that stays, and something that goes, on the photo first.");
    inputs[file.inputs[1].name] = { data: state.marks.slice(), shape: [1, height, width, 1] };
  }
  return [inputs];
}

async function onDevice(model) {
  const file = artifact();
  const description = { url: new URL(`served/${file.path}?sha256=${file.sha256}`, location.href).href, format: engine(), inputs: file.inputs, outputs: file.outputs };
  const calls = inputsOf(model, file), answers = [];
  let milliseconds = 0;
  for (const inputs of calls) {
    const answer = await compute(description, inputs);
    answers.push(answer.outputs);
    milliseconds += answer.milliseconds;
  }
  window.last = { model: model.name, engine: engine(), inputs: calls, outputs: answers };
  reveal(model, file, answers);
  say("status", `Done in ${(milliseconds / 1000).toFixed(milliseconds < 1000 ? 2 : 1)} s, on this device.`);
}

function names(doc) {
  const found = {};
  for (const [, number, name] of (doc.split(":")[1] || "").matchAll(/(\d+) ([^,]+)/g)) found[number] = name.trim();
  return found;
}

function legend(labels, doc) {
  const counts = new Map(), meaning = names(doc);
  for (const label of labels) counts.set(label, (counts.get(label) || 0) + 1);
  const rows = [...counts].sort((a, b) => b[1] - a[1]).map(([label, count]) => {
    const item = document.createElement("li"), svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), box = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    box.setAttribute("width", "100%");
    box.setAttribute("height", "100%");
    box.setAttribute("fill", `rgb(${color(label).join(",")})`);
    svg.append(box);
    item.append(svg, `${meaning[label] || label}: ${((100 * count) / labels.length).toFixed(1)} %`);
    return item;
  });
  $("legend").replaceChildren(...rows);
}

function boxes(outputs, specs) {
  const canvas = $("output"), context = canvas.getContext("2d"), found = [];
  draw(canvas, state.fit);
  context.strokeStyle = context.fillStyle = "#ffd600";
  context.lineWidth = Math.max(1, canvas.width / 150);
  context.font = `${Math.max(9, canvas.width / 12)}px sans-serif`;
  for (let i = 0; i < outputs.scores.data.length; i++) {
    if (outputs.labels.data[i] < 0 || outputs.scores.data[i] < 0.5) continue;
    const [x1, y1, x2, y2] = outputs.boxes.data.slice(4 * i, 4 * i + 4);
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    context.fillText(outputs.labels.data[i], x1 + 1, y1 > 12 ? y1 - 2 : y2 + 10);
    found.push(`${outputs.labels.data[i]} (${(100 * outputs.scores.data[i]).toFixed(0)} %)`);
  }
  say("output-says", found.length ? `Found: ${found.join(", ")}` : "Nothing was found that is likely enough.");
}

function reveal(model, file, answers) {
  const outputs = answers[0], specs = file.outputs, canvas = $("output");
  $("legend").replaceChildren();
  say("output-says", "");
  if (model.kind === "seed") {
    const { data, shape } = answers[0][specs[0].name], [, height, width, channels] = shape, side = 4;
    const grid = new Uint8ClampedArray(side * height * side * width * channels);
    answers.forEach((answer, call) => {
      const pixels = answer[specs[0].name].data, each = height * width * channels;
      for (let n = 0; n < pixels.length / each; n++) {
        const place = call * (pixels.length / each) + n, row = Math.floor(place / side), column = place % side;
        for (let y = 0; y < height; y++) grid.set(pixels.subarray(n * each + y * width * channels, n * each + (y + 1) * width * channels), (((row * height + y) * side + column) * width) * channels);
      }
    });
    draw(canvas, { data: grid, width: side * width, height: side * height, channels });
    say("output-says", "Generated: none of them was ever seen.");
  } else if (outputs.boxes && outputs.scores && outputs.labels) {
    boxes(outputs, specs);
  } else if (model.kind === "strokes") {
    const alpha = outputs[specs[0].name].data;
    draw(canvas, { ...state.fit, alpha });
    say("output-says", "What was cut out.");
  } else {
    const painted = specs.find(picture), labels = specs.find((spec) => spec.dtype === "int32" && spec.shape.length === 3);
    const { data, shape } = outputs[painted.name];
    draw(canvas, { data, height: shape[1], width: shape[2] });
    say("output-says", `${shape[2]} × ${shape[1]} pixels`);
    if (labels) legend(outputs[labels.name].data, labels.doc);
  }
  canvas.toBlob((blob) => {
    if ($("save").href) URL.revokeObjectURL($("save").href);
    $("save").href = URL.createObjectURL(blob);
    $("save").hidden = false;
  });
}

// --- the server, where there is one

function send(url, body, progress) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("POST", url);
    request.responseType = "blob";
    request.upload.onprogress = (event) => progress(event.lengthComputable ? event.loaded / event.total : 0);
    request.onerror = () => failed(new Trouble("The server does not answer. Is it still running?"));
    request.onload = async () => {
      if (request.status < 400) return done(request.response);
      let words = `the server answered ${request.status}`;
      try {
        words = JSON.parse(await request.response.text()).error;
      } catch {}
      failed(new Trouble(`The server could not do this: ${words}`));
    };
    request.send(body);
  });
}

function encode(pixels) {
  const canvas = document.createElement("canvas");
  draw(canvas, pixels);
  return new Promise((done) => canvas.toBlob(done));
}

async function onServer(model) {
  $("progress").hidden = false;
  say("status", "Sending the picture …");
  const uploading = (share) => {
    $("progress").value = share;
    if (share === 1) say("status", "The server computes …");
  };
  const photo = await encode(shrunk(state.photo, model.job ? 1024 : 2048));
  let blob;
  if (model.job) {
    const query = new URLSearchParams({ family: model.job.family, preset: model.job.preset });
    const { id } = JSON.parse(await (await send(`studio/jobs?${query}`, photo, uploading)).text());
    $("progress").removeAttribute("value");
    for (;;) {
      await new Promise((done) => setTimeout(done, 500));
      const job = await json(`studio/jobs/${id}`);
      if (!job) throw new Trouble("The server has forgotten this work. Start it again.");
      if (job.state === "failed") throw new Trouble(`The server could not do this: ${job.message}`);
      say("status", `The server works: ${job.message}`);
      if (job.state === "done") break;
    }
    blob = await (await fetch(`studio/gallery/${id}.png`)).blob();
  } else {
    blob = await send(`studio/pictures/${model.name}`, photo, uploading);
  }
  const made = await createImageBitmap(blob);
  const result = pixelsOf(made, made.width, made.height);
  draw($("output"), result);
  say("output-says", `${result.width} × ${result.height} pixels`);
  $("progress").hidden = true;
  $("save").href = URL.createObjectURL(blob);
  $("save").hidden = false;
  say("status", "Done, by the server.");
  await gallery();
}

async function gallery() {
  const made = await json("studio/gallery");
  if (!made) return;
  $("gallery").hidden = made.pictures.length === 0;
  $("gallery-pictures").replaceChildren(
    ...made.pictures.map(({ file, title }) => {
      const link = document.createElement("a"), image = document.createElement("img");
      link.href = image.src = `studio/gallery/${file}`;
      image.alt = link.title = title;
      image.loading = "lazy";
      link.append(image);
      return link;
    }),
  );
}

async function run() {
  if (state.busy || $("run").disabled) return;
  const model = chosen();
  state.busy = true;
  well();
  say("status", "Computing …");
  update();
  try {
    await (engine() === "server" ? onServer(model) : onDevice(model));
  } catch (error) {
    fail(error);
  }
  state.busy = false;
  update();
}

// --- camera

async function camera() {
  well();
  try {
    if (!navigator.mediaDevices || !navigator.mediaDevices.getUserMedia) throw new Trouble("This browser gives no camera to this page. Choose a photo instead.");
    state.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" }, audio: false });
  } catch (error) {
    const words = {
      NotAllowedError: "The camera was refused. Allow it in the browser's settings for this page, or choose a photo instead.",
      NotFoundError: "No camera was found. Connect one, or choose a photo instead.",
      NotReadableError: "The camera is used by another program. Close that, or choose a photo instead.",
    };
    fail(error instanceof Trouble ? error : new Trouble(words[error.name] || `The camera could not be opened (${error.message}). Choose a photo instead.`));
    return;
  }
  $("video").srcObject = state.stream;
  $("video").hidden = false;
  $("input").hidden = true;
  $("shoot").hidden = false;
  await $("video").play();
}

function shoot() {
  const video = $("video");
  if (!video.videoWidth) return;
  state.photo = pixelsOf(video, video.videoWidth, video.videoHeight);
  for (const track of state.stream.getTracks()) track.stop();
  video.srcObject = null;
  video.hidden = true;
  $("input").hidden = false;
  $("shoot").hidden = true;
  show();
  update();
}

// --- strokes

let painted = null; // where the last stroke was
function paint(event) {
  if (!state.marks || !(event.buttons & 1)) return;
  const from = event.type === "pointermove" && painted ? painted : [event.clientX, event.clientY];
  painted = [event.clientX, event.clientY];
  const steps = Math.max(1, Math.ceil(Math.hypot(painted[0] - from[0], painted[1] - from[1]) / 4));
  for (let i = 1; i <= steps; i++) dab(from[0] + ((painted[0] - from[0]) * i) / steps, from[1] + ((painted[1] - from[1]) * i) / steps);
}

function dab(clientX, clientY) {
  const canvas = $("input"), at = canvas.getBoundingClientRect(), context = canvas.getContext("2d");
  const x = ((clientX - at.left) / at.width) * canvas.width, y = ((clientY - at.top) / at.height) * canvas.height;
  const value = Number(document.querySelector("input[name=brush]:checked").value), radius = canvas.width / 32;
  for (let j = Math.max(0, Math.floor(y - radius)); j <= Math.min(canvas.height - 1, y + radius); j++) {
    for (let i = Math.max(0, Math.floor(x - radius)); i <= Math.min(canvas.width - 1, x + radius); i++) {
      if ((i - x) ** 2 + (j - y) ** 2 <= radius ** 2) state.marks[j * canvas.width + i] = value;
    }
  }
  context.fillStyle = value ? "#00c853" : "#d50000";
  context.beginPath();
  context.arc(x, y, radius, 0, 7);
  context.fill();
}

// --- beginning

async function begin() {
  if ("serviceWorker" in navigator) {
    // What is loaded from now on is kept for when there is no network.
    const registered = navigator.serviceWorker.register("sw.js").then(() => navigator.serviceWorker.ready);
    const controlled = new Promise((done) => {
      if (navigator.serviceWorker.controller) done();
      navigator.serviceWorker.addEventListener("controllerchange", done);
    });
    const late = new Promise((done) => setTimeout(done, 3000));
    await Promise.race([Promise.all([registered, controlled]), late]).catch(() => {});
  }
  const index = await json("served/export.json");
  if (!index || !index.models) throw new Trouble("There are no models beside this page. Make some with `kerasmodels export`, and start `kerasmodels studio` with their folder.");
  state.models = offered(index);
  const studio = await json("studio.json").catch(() => null);
  if (studio) {
    state.here = studio.runtimes;
    for (const model of state.models) model.server = model.kind === "photo" && studio.models.includes(model.name);
    state.models = state.models.filter((model) => state.here || model.server);
    for (const job of studio.jobs) {
      const name = job.preset ? `${job.family}/${job.preset}` : job.family;
      state.models.push({ name, about: { description: job.line }, engines: {}, kind: "photo", server: true, job });
    }
    await gallery();
  }
  if (!state.models.length) throw new Trouble("None of the models beside this page takes a photo or a seed. Export one, such as fast_style/wave.");
  state.models.forEach((model, number) => $("model").add(new Option(model.job ? `${model.name} (full size, on the server)` : model.name, number)));
  pickModel();
}

$("model").addEventListener("change", pickModel);
$("engine").addEventListener("change", () => {
  show();
  update();
});
$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) takePhoto(file, file.name);
  $("file").value = "";
});
$("camera").addEventListener("click", camera);
$("shoot").addEventListener("click", shoot);
$("clear").addEventListener("click", show);
$("run").addEventListener("click", run);
$("input").addEventListener("pointerdown", paint);
$("input").addEventListener("pointermove", paint);
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) takePhoto(file, file.name);
});
begin()
  .catch(fail)
  .finally(() => document.body.setAttribute("data-ready", ""));
