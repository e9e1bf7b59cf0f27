// Runs models beside the page. A classic worker: the runtimes bring scripts that are loaded as such.
let loaded = { key: "", call: null, free: () => {} };
const tensor = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array, int64: BigInt64Array, bool: Uint8Array };

async function bytes(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url} is not there (${answer.status})`);
  return new Uint8Array(await answer.arrayBuffer());
}

let litert = null;
async function loadLiteRT(model) {
  if (!litert) {
    const library = await import("./runtime/litert.js");
    const folder = new URL("runtime/", self.location.href).href;
    // In a worker it would look for its .wasm beside the worker.
    self.Module = { locateFile: (name) => folder + name };
    await library.loadLiteRt(folder);
    litert = library;
  }
  const compiled = await litert.loadAndCompile(await bytes(model.url), { accelerator: "wasm" });
  return {
    free: () => compiled.delete(),
    call: async (inputs) => {
      const given = {};
      for (const spec of model.inputs) given[spec.name] = new litert.Tensor(inputs[spec.name].data, inputs[spec.name].shape);
      const signature = Object.keys(compiled.signatures)[0];
      let found = {};
      try {
        found = signature ? await compiled.run(signature, given) : await compiled.run(given);
        const outputs = {};
        for (const [name, value] of Object.entries(found)) {
          const data = await value.data();
          outputs[name] = { data: data.slice(), shape: Array.from(value.type.layout.dimensions) };
        }
        return outputs;
      } finally {
        for (const each of [...Object.values(given), ...Object.values(found)]) each.delete();
      }
    },
  };
}

let ort = null;
async function loadONNX(model) {
  if (!ort) {
    ort = await import("./runtime/ort.wasm.min.mjs");
    ort.env.wasm.wasmPaths = new URL("runtime/", self.location.href).href;
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.proxy = false;
    ort.env.logLevel = "error";
  }
  const session = await ort.InferenceSession.create(await bytes(model.url), { executionProviders: ["wasm"] });
  return {
    free: () => session.release(),
    call: async (inputs) => {
      const given = {};
      for (const spec of model.inputs) given[spec.name] = new ort.Tensor(spec.dtype, inputs[spec.name].data, inputs[spec.name].shape);
      const found = await session.run(given), outputs = {};
      for (const [name, value] of Object.entries(found)) outputs[name] = { data: value.data.slice(), shape: Array.from(value.dims) };
      return outputs;
    },
  };
}

self.onmessage = async ({ data: { id, model, inputs } }) => {
  let loading = true;
  try {
    const key = `${model.format} ${model.url}`;
    if (loaded.key !== key) {
      loaded.free();
      loaded = { key: "", call: null, free: () => {} };
      self.postMessage({ id, state: "loading" });
      loaded = { key, ...(await (model.format === "litert" ? loadLiteRT : loadONNX)(model)) };
    }
    loading = false;
    self.postMessage({ id, state: "computing" });
    const began = performance.now();
    const outputs = await loaded.call(inputs);
    for (const spec of model.outputs) {
      if (!(spec.name in outputs)) throw new Error(`the model gave no ${spec.name}`);
      const wanted = tensor[spec.dtype];
      if (wanted && !(outputs[spec.name].data instanceof wanted)) outputs[spec.name].data = wanted.from(outputs[spec.name].data);
    }
    self.postMessage({ id, outputs, milliseconds: performance.now() - began });
  } catch (error) {
    self.postMessage({ id, error: String((error && error.message) || error), loading });
  }
};
